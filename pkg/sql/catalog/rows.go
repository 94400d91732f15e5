package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// A row is one of a result in text format. Its fields are read in order; the first error stays.
type row struct {
	values [][]byte
	err    error
}

// next is the next field; NULL is "".
func (r *row) next() string { return string(r.bytes()) }

// bytes is the next field, until the next row is read.
func (r *row) bytes() []byte {
	if len(r.values) == 0 {
		if r.err == nil {
			r.err = errors.New("too few fields")
		}
		return nil
	}
	value := r.values[0]
	r.values = r.values[1:]
	return value
}

func (r *row) integer(bits int) int64 {
	value := r.next()
	n, err := strconv.ParseInt(value, 10, bits)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%q is not a number", value)
	}
	return n
}

func (r *row) oid() uint32 { return uint32(r.integer(64)) }

func (r *row) flag() bool { return string(r.bytes()) == "t" }

// char is a value of the type "char".
func (r *row) char() byte {
	if value := r.bytes(); len(value) > 0 {
		return value[0]
	}
	return 0
}

// oids are the elements of an array of OIDs.
func (r *row) oids() (oids []uint32) {
	list := strings.Trim(r.next(), "{}")
	if _, bare, ok := strings.Cut(list, "={"); ok { // a vector's bounds: [0:1]={23,25
		list = bare
	}
	if list == "" {
		return nil
	}
	for field := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(field, 10, 32)
		if err != nil && r.err == nil {
			r.err = fmt.Errorf("%q is not an OID", field)
		}
		oids = append(oids, uint32(n))
	}
	return oids
}

// texts are the elements of an array of text.
func (r *row) texts(types *pgtype.Map) (texts []string) {
	value := r.next()
	if value == "" {
		return nil
	}
	if err := types.Scan(pgtype.TextArrayOID, pgtype.TextFormatCode, []byte(value), &texts); err != nil && r.err == nil {
		r.err = err
	}
	return texts
}

// name is the next field, shared with those of the same text.
func (l *loader) name(r *row) string {
	b := r.bytes()
	if known, ok := l.names[string(b)]; ok {
		return known
	}
	s := string(b)
	l.names[s] = s
	return s
}

func (l *loader) marker(r *row) { l.c.marker = r.next() }

func (l *loader) relation(r *row) {
	rel := &Relation{OID: r.oid(), Schema: l.name(r), Name: l.name(r), Kind: r.char(), Type: r.oid(), TOASTOf: r.oid()}
	l.c.relations[rel.OID] = rel
	l.c.relationsNamed[rel.Name] = append(l.c.relationsNamed[rel.Name], rel)
}

func (l *loader) column(r *row) {
	rel := l.c.relations[r.oid()]
	column := Column{Attribute: int16(r.integer(16)), Name: l.name(r), Type: r.oid(), Typmod: int32(r.integer(32)), Generated: r.flag()}
	if rel != nil {
		rel.Columns = append(rel.Columns, column)
	}
}

func (l *loader) inheritance(r *row) {
	child, parent := r.oid(), r.oid()
	if c, p := l.c.relations[child], l.c.relations[parent]; c != nil && p != nil { // else they are indexes
		c.Parents = append(c.Parents, parent)
		p.Children = append(p.Children, child)
	}
}

func (l *loader) reference(r *row) {
	from, to := r.oid(), r.oid()
	if rel := l.c.relations[to]; rel != nil {
		rel.ReferencedBy = append(rel.ReferencedBy, from)
	}
}

func (l *loader) rule(r *row) {
	if rel := l.c.relations[r.oid()]; rel != nil {
		rel.Rules = true
	}
}

func (l *loader) trigger(r *row) {
	rel, trigger := l.c.relations[r.oid()], Trigger{Function: r.oid(), Before: r.flag(), Instead: r.flag()}
	if rel != nil {
		rel.Triggers = append(rel.Triggers, trigger)
	}
}

func (l *loader) deparsed(r *row) { l.toDeparse = append(l.toDeparse, r.next()) }

func (l *loader) expression(r *row) {
	rel, attribute, expression := l.c.relations[r.oid()], int16(r.integer(16)), l.name(r)
	if rel == nil {
		return
	}
	if c := rel.Attribute(attribute); c != nil {
		c.Expression = expression
	}
}

func (l *loader) check(r *row) {
	if rel, expression := l.c.relations[r.oid()], r.next(); rel != nil && expression != "" && !slices.Contains(rel.Checks, expression) {
		rel.Checks = append(rel.Checks, expression)
	}
}

func (l *loader) domainCheck(r *row) {
	if t, expression := l.c.types[r.oid()], r.next(); t != nil {
		t.Checks = append(t.Checks, expression)
	}
}

func (l *loader) typ(r *row) {
	t := &Type{OID: r.oid(), Schema: l.name(r), Name: l.name(r), Kind: r.char(), Element: r.oid(), Array: r.oid(),
		Mod: int32(r.integer(32)), Relation: r.oid(), Delimiter: r.char(), Default: r.next()}
	l.c.types[t.OID] = t
	l.c.typesNamed[t.Name] = append(l.c.typesNamed[t.Name], t)
}

func (l *loader) label(r *row) {
	t, label := l.c.types[r.oid()], r.next()
	if t != nil {
		t.Labels = append(t.Labels, label)
	}
}

func (l *loader) function(r *row) {
	f := &Function{OID: r.oid(), Schema: l.name(r), Name: l.name(r), Kind: r.char(), Language: l.name(r), Volatility: r.char(),
		Returns: r.oid(), ReturnsSet: r.flag()}
	types := r.oids()
	modes := strings.Split(strings.Trim(r.next(), "{}"), ",")
	names := r.texts(l.arrays)
	f.Arguments = make([]Argument, len(types))
	for i, typ := range types {
		f.Arguments[i] = Argument{Type: typ, Mode: 'i'}
		if i < len(modes) && modes[i] != "" {
			f.Arguments[i].Mode = modes[i][0]
		}
		if i < len(names) {
			f.Arguments[i].Name = names[i]
		}
	}
	f.Variadic, f.Defaults, f.Body, f.SQLBody = r.flag(), r.next(), r.next(), r.next()
	f.Config, f.Extension = r.texts(l.arrays), l.name(r)
	l.c.functions[f.OID] = f
	l.c.functionsNamed[f.Name] = append(l.c.functionsNamed[f.Name], f)
}

func (l *loader) aggregate(r *row) {
	f, supports := l.c.functions[r.oid()], r.oids()
	if f == nil {
		return
	}
	for _, support := range supports {
		if support != 0 {
			f.Supports = append(f.Supports, support)
		}
	}
}

func (l *loader) operatorName(r *row) { l.c.operators[l.name(r)] = nil }

func (l *loader) operator(r *row) {
	o := &Operator{Schema: l.name(r), Name: l.name(r), Left: r.oid(), Right: r.oid(), Function: r.oid()}
	l.c.operators[o.Name] = append(l.c.operators[o.Name], o)
}

func (l *loader) cast(r *row) {
	l.c.casts = append(l.c.casts, Cast{Source: r.oid(), Target: r.oid(), Function: r.oid(), Implicit: r.flag()})
}

func (l *loader) definition(r *row) {
	oid, definition := r.oid(), r.next()
	if rel := l.c.relations[oid]; rel != nil {
		rel.Definition = definition
	}
}
