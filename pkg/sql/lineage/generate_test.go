package lineage

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// A generator makes statements over testdata/schema.sql that a server mostly accepts.
type generator struct {
	*rand.Rand
	names int
	// level is how deep the part nests that is being made.
	level int
}

// A term is a column in sight: how it is named, and its type: t text, i int, j jsonb, r a row.
type term struct {
	text string
	typ  byte
}

// A source is an item of FROM.
type source struct {
	text  string
	terms []term
}

func newGenerator(seed uint64) *generator { return &generator{Rand: rand.New(rand.NewPCG(seed, 7))} }

func (g *generator) pick(choices ...string) string { return choices[g.IntN(len(choices))] }

func (g *generator) name() string {
	g.names++
	return fmt.Sprintf("n%d", g.names)
}

// tables are the relations of the schema with columns and types.
var tables = []struct{ name, columns string }{
	{"customers", "id:i name:t email:t ssn:t note:t domain:t age:i doc:j"},
	{"public.customers", "id:i name:t email:t ssn:t"},
	{"orders", "id:i customer_id:i card:t note:t"},
	{"notes", "id:i body:t"},
	{"archive", "id:i email:t note:t"},
	{"hr.staff", "id:i name:t salary:i"},
	{"hr.managers", "id:i name:t salary:i level:i"},
	{"events", "id:i card:t"},
	{"v_customers", "id:i name:t mail:t s:t note:t"},
	{"v_deep", "id:i m:t note:t"},
	{"v_named", "a:t b:t"},
	{"v_star", "id:i name:t email:t ssn:t domain:t"},
	{"m_customers", "id:i e:t name:t"},
	{"all_customers()", "id:i name:t email:t ssn:t"},
	{"pairs()", "n:t e:t"},
}

func terms(alias, columns string) (list []term) {
	for column := range strings.FieldsSeq(columns) {
		list = append(list, term{alias + "." + column[:len(column)-2], column[len(column)-1]})
	}
	return list
}

// source is an item of FROM. seen are the terms that a lateral one may use.
func (g *generator) source(seen []term) source {
	alias := g.name()
	g.level++
	defer func() { g.level-- }()
	choice := g.IntN(14)
	if g.level > 3 {
		choice = 0
	}
	switch choice {
	case 0, 1, 2, 3, 4:
		t := tables[g.IntN(len(tables))]
		list := append(terms(alias, t.columns), term{alias, 'r'})
		return source{t.name + " AS " + alias, list}
	case 5: // columns with other names
		t := tables[g.IntN(len(tables))]
		columns := strings.Fields(t.columns)
		var names, list []string
		for i, column := range columns {
			names = append(names, fmt.Sprintf("x%d", i))
			list = append(list, fmt.Sprintf("x%d:%c", i, column[len(column)-1]))
		}
		if t.name == "customers" || t.name == "orders" { // their columns between these are not in the list
			return source{"notes AS " + alias + " (y, x)", []term{{alias + ".x", 't'}, {alias + ".y", 'i'}}}
		}
		if strings.HasPrefix(t.name, "v_star") || strings.HasPrefix(t.name, "public.") || t.name == "events" || t.name == "all_customers()" {
			return source{"archive AS " + alias + " (z, y, x)", []term{{alias + ".x", 't'}, {alias + ".y", 't'}, {alias + ".z", 'i'}}}
		}
		return source{t.name + " AS " + alias + " (" + strings.Join(names, ", ") + ")", terms(alias, strings.Join(list, " "))}
	case 6, 7:
		text, columns := g.query(nil)
		return source{"(" + text + ") AS " + alias, terms(alias, columns)}
	case 8:
		text, columns := g.query(seen)
		return source{"LATERAL (" + text + ") AS " + alias, terms(alias, columns)}
	case 9:
		return source{fmt.Sprintf("(VALUES (1, %s), (2, %s)) AS %s (a, b)", g.expr('t', nil), g.expr('t', seen), alias), terms(alias, "a:i b:t")}
	case 10:
		return source{fmt.Sprintf("unnest(ARRAY[%s, %s]) AS %s (u)", g.expr('t', seen), g.expr('t', seen), alias), terms(alias, "u:t")}
	case 11:
		return source{fmt.Sprintf("jsonb_each_text(%s) AS %s (k, v)", g.expr('o', seen), alias), terms(alias, "k:t v:t")}
	case 12:
		return source{fmt.Sprintf("ROWS FROM (unnest(ARRAY[%s]), generate_series(1, 2)) AS %s (a, b)", g.expr('t', seen), alias), terms(alias, "a:t b:i")}
	}
	return source{fmt.Sprintf("generate_series(1, 3) AS %s", alias), []term{{alias, 'i'}}}
}

// from is a FROM clause.
func (g *generator) from(outer []term) (text string, seen []term) {
	first := g.source(outer)
	text, seen = first.text, append([]term{}, first.terms...)
	for range g.IntN(3) {
		next := g.source(seen)
		lateral := strings.Contains(next.text, "LATERAL") || strings.Contains(next.text, "(")
		join := g.pick(" JOIN ", " LEFT JOIN ", ", ", " CROSS JOIN ")
		if lateral {
			join = ", "
		}
		condition := ""
		if join == " JOIN " || join == " LEFT JOIN " {
			condition = " ON " + g.condition(next.terms)
		}
		text += join + next.text + condition
		seen = append(seen, next.terms...)
	}
	return text, seen
}

// condition decides on rows by what is not masked.
func (g *generator) condition(seen []term) string {
	for range 4 {
		if t := g.term('i', seen); t != "" && !strings.Contains(t, "salary") {
			return t + g.pick(" > 0", " <> 7", " < 100", " IS NOT NULL")
		}
	}
	return g.pick("true", "1 = 1")
}

func (g *generator) term(typ byte, seen []term) string {
	var fitting []string
	for _, t := range seen {
		if t.typ == typ {
			fitting = append(fitting, t.text)
		}
	}
	if len(fitting) == 0 {
		return ""
	}
	return fitting[g.IntN(len(fitting))]
}

// expr is an expression of a type: t, i, b for boolean, o for a JSON object.
func (g *generator) expr(typ byte, seen []term) string {
	g.level++
	defer func() { g.level-- }()
	e := func(typ byte) string { return g.expr(typ, seen) }
	if g.level > 5 || g.IntN(3) == 0 {
		if t := g.term(typ, seen); t != "" && typ != 'o' {
			return t
		}
	}
	if g.level > 7 {
		return map[byte]string{'t': "'k'::text", 'i': "3", 'b': "true", 'o': `'{"a": "b"}'::jsonb`}[typ]
	}
	switch typ {
	case 'i':
		switch g.IntN(9) {
		case 0:
			return "length(" + e('t') + ")"
		case 1:
			return "(" + e('i') + " + " + e('i') + ")"
		case 2:
			return "coalesce(" + e('i') + ", 0)"
		case 3:
			return "(CASE WHEN " + e('b') + " THEN " + e('i') + " ELSE 2 END)"
		case 4:
			return "(SELECT count(*)::int FROM notes)"
		case 5:
			return "ascii(" + e('t') + ")"
		case 6:
			return "num_nulls(" + e('t') + ", " + e('i') + ")"
		}
		return fmt.Sprint(g.IntN(5))
	case 'b':
		switch g.IntN(6) {
		case 0:
			return "(" + e('t') + g.pick(" = ", " < ", " LIKE ", " IS DISTINCT FROM ") + e('t') + ")"
		case 1:
			return "(" + e('i') + " BETWEEN " + e('i') + " AND " + e('i') + ")"
		case 2:
			return "(" + e('t') + " IS NULL)"
		case 3:
			return "(NOT " + e('b') + " OR " + e('b') + ")"
		case 4:
			return "(" + e('t') + " IN (" + e('t') + ", 'z'))"
		}
		return g.pick("true", "false")
	case 'o':
		row := g.term('r', seen)
		switch {
		case row != "" && g.IntN(2) == 0:
			return "to_jsonb(" + row + ")"
		case g.IntN(2) == 0:
			return "jsonb_build_object('k', " + e('t') + ", 'i', " + e('i') + ")"
		}
		return "(" + e('o') + " || " + e('o') + ")"
	}
	if row := g.term('r', seen); row != "" && g.IntN(8) == 0 {
		return g.pick(row+"::text", "row_to_json("+row+")::text", "to_jsonb("+row+")::text", "ROW("+row+".*)::text", "format('%s', "+row+")")
	}
	switch g.IntN(22) {
	case 0:
		return "(" + e('t') + " || " + e('t') + ")"
	case 1:
		return g.pick("lower", "upper", "reverse", "md5", "trim", "initcap", "identity_of", "quote_literal") + "(" + e('t') + ")"
	case 2:
		return "coalesce(" + e('t') + ", " + e('t') + ")"
	case 3:
		return "(CASE WHEN " + e('b') + " THEN " + e('t') + " ELSE " + e('t') + " END)"
	case 4:
		return "(CASE " + e('t') + " WHEN " + e('t') + " THEN " + e('t') + " END)"
	case 5:
		return "nullif(" + e('t') + ", " + e('t') + ")"
	case 6:
		return "substr(" + e('t') + ", 1, 12)"
	case 7:
		return "(" + e('i') + ")::text"
	case 8:
		return "(ARRAY[" + e('t') + ", " + e('t') + "])[" + fmt.Sprint(1+g.IntN(2)) + "]"
	case 9:
		return "(ROW(" + e('t') + ", " + e('t') + ")).f" + fmt.Sprint(1+g.IntN(2))
	case 10:
		return "(" + e('o') + " ->> " + g.pick("'email'", "'ssn'", "'name'", "'k'", "'id'") + ")"
	case 11:
		return "(" + g.scalar(seen) + ")"
	case 12:
		return "format('%s-%s', " + e('t') + ", " + e('i') + ")"
	case 13:
		return "greatest(" + e('t') + ", " + e('t') + ")"
	case 14:
		return "encode(" + e('t') + "::bytea, " + g.pick("'hex'", "'base64'") + ")"
	case 15:
		return "array_to_string(string_to_array(" + e('t') + ", '@'), " + e('t') + ")"
	case 16:
		return "mail_of(" + e('i') + ")"
	case 17:
		return "name_of(" + e('i') + ")"
	case 18:
		return "trim(both from " + e('t') + ")"
	case 19:
		return "(" + e('b') + ")::text"
	case 20:
		return "xmlserialize(content xmlelement(name a, " + e('t') + ") AS text)"
	}
	return g.pick("'k'::text", "'x y'::text", "NULL::text", "$$q$$::text")
}

// scalar is a query with one column of text and at most one row.
func (g *generator) scalar(outer []term) string {
	from, seen := g.from(outer)
	value := g.expr('t', seen)
	return "SELECT " + g.pick("min", "max") + "(" + value + ") FROM " + from
}

// query is a query with names and types of its columns. outer are the terms around it.
func (g *generator) query(outer []term) (text, columns string) {
	g.level++
	defer func() { g.level-- }()
	if g.level < 3 && g.IntN(5) == 0 {
		left, columns := g.columns(outer, "a:t b:i")
		right, _ := g.columns(outer, "c:t d:i")
		return "(" + left + ") UNION ALL (" + right + ")", columns
	}
	want := g.pick("a:t b:i", "a:t", "a:i b:t c:t", "email:t id:i", "name:t ssn:t")
	if g.IntN(6) == 0 {
		return g.grouped(outer)
	}
	return g.columns(outer, want)
}

// columns is a query with certain columns.
func (g *generator) columns(outer []term, want string) (text, columns string) {
	with, from := "", ""
	var seen []term
	switch {
	case g.level < 3 && g.IntN(6) == 0:
		name := g.name()
		inner, columns := g.query(nil)
		with = "WITH " + g.pick("", "RECURSIVE ") + name + " AS (" + inner + ") "
		from, seen = name, append(terms(name, columns), term{name, 'r'})
	default:
		from, seen = g.from(outer)
	}
	seen = append(seen, outer...)
	var list []string
	for column := range strings.FieldsSeq(want) {
		list = append(list, g.expr(column[len(column)-1], seen)+" AS "+column[:len(column)-2])
	}
	text = with + "SELECT " + strings.Join(list, ", ") + " FROM " + from
	if g.IntN(3) == 0 {
		text += " WHERE " + g.condition(seen)
	}
	return text, want
}

// grouped is a query with aggregates.
func (g *generator) grouped(outer []term) (text, columns string) {
	from, seen := g.from(outer)
	id := g.term('i', seen)
	if id == "" || strings.Contains(id, "salary") {
		id = "1"
	}
	value := g.expr('t', seen)
	aggregate := g.pick("min(V)", "max(V)", "count(V)::text", "array_agg(V ORDER BY V)::text", "json_agg(V ORDER BY V)::text",
		"firsts(V ORDER BY V)", "string_agg(V, ',' ORDER BY V)", "(percentile_disc(0.5) WITHIN GROUP (ORDER BY V))", "max(V) FILTER (WHERE true)")
	return "SELECT count(*)::int AS b, " + strings.ReplaceAll(aggregate, "V", value) + " AS a FROM " + from + " GROUP BY (" + id + ")", "b:i a:t"
}

// statement is a whole one.
func (g *generator) statement() string {
	g.level = 0
	switch g.IntN(16) {
	case 0:
		text, _ := g.columns(nil, "a:i b:t")
		return "INSERT INTO notes (id, body) " + text + g.pick("", " RETURNING *", " RETURNING body")
	case 1:
		seen := append(terms("customers", tables[0].columns), term{"customers", 'r'})
		column := g.pick("name", "note", "email")
		return "UPDATE customers SET " + column + " = " + g.expr('t', seen) + g.pick("", " RETURNING *", " RETURNING name, "+g.expr('t', seen))
	case 2:
		return "WITH d AS (DELETE FROM notes RETURNING id, body) SELECT " + g.expr('t', append(terms("d", "id:i body:t"), term{"d", 'r'})) + " FROM d"
	case 3:
		text, _ := g.query(nil)
		return "CREATE TABLE fresh AS " + text
	case 4:
		text, _ := g.query(nil)
		return "COPY (" + text + ") TO STDOUT"
	case 5:
		text, _ := g.columns(nil, "a:t b:i")
		return "CREATE VIEW fresh AS " + text
	case 6:
		text, _ := g.columns(nil, "a:t")
		return "CREATE FUNCTION fresh() RETURNS SETOF text LANGUAGE sql AS $f$ " + strings.ReplaceAll(text, "$$q$$", "'q'") + " $f$"
	case 7:
		from, seen := g.from(nil)
		return "SELECT * FROM " + from + " WHERE " + g.condition(seen)
	case 8:
		from, seen := g.from(nil)
		return "SELECT " + g.expr('t', seen) + ", row_number() OVER (ORDER BY 1), lag(" + g.expr('t', seen) + ") OVER (ORDER BY 1) IS NULL FROM " + from
	case 9:
		base, _ := g.columns(nil, "a:t b:i")
		return "WITH RECURSIVE r (n, a, b) AS (SELECT 1, a, b FROM (" + base + ") s UNION ALL SELECT n + 1, " +
			g.expr('t', terms("r", "a:t b:i")) + ", b FROM r WHERE n < 3) SELECT n, a, b FROM r"
	case 10:
		from, seen := g.from(nil)
		return "MERGE INTO notes USING (SELECT " + g.expr('i', seen) + " AS k, " + g.expr('t', seen) + " AS v FROM " + from +
			" LIMIT 1) q ON notes.id = -1 WHEN NOT MATCHED THEN INSERT (id, body) VALUES (q.k, q.v)"
	}
	text, _ := g.query(nil)
	return text
}
