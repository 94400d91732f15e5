package sql

import (
	"strconv"
	"strings"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// Settings on which the meaning of later text depends.
const (
	settingStrings    = "standard_conforming_strings"
	settingEncoding   = "client_encoding"
	settingSearchPath = "search_path"
	settingRole       = "role"
	settingUser       = "session_authorization"
)

// SafeClientEncoding is false for a client encoding in which a byte below 0x80 can be part of a longer character, and for a name that is
// not known: a quote or backslash could hide there from the parser, which takes each such byte for itself. Names are compared as the
// server does it, by letters and digits without case (pg_char_to_encoding).
func SafeClientEncoding(name string) bool {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case c >= 'A' && c <= 'Z':
			b.WriteByte(c | 0x20)
		case isLetter(c), isDigit(c):
			b.WriteByte(c)
		case c >= utf8.RuneSelf:
			return false
		}
	}
	return safeEncodings[b.String()]
}

// safeEncodings are the names that the server knows (encnames.c of PostgreSQL 17) for encodings that extend ASCII byte by byte. The
// others are BIG5, GB18030, GBK, JOHAB, SJIS, SHIFT_JIS_2004 and UHC. The bytes of a longer character in MULE_INTERNAL and EUC are all
// beyond ASCII, and the server refuses text in which they are not.
var safeEncodings = func() map[string]bool {
	names := map[string]bool{}
	for name := range strings.FieldsSeq(`
		abc alt euccn eucjis2004 eucjp euckr euctw iso88591 iso885910 iso885913 iso885914 iso885915 iso885916 iso88592 iso88593
		iso88594 iso88595 iso88596 iso88597 iso88598 iso88599 koi8 koi8r koi8u latin1 latin10 latin2 latin3 latin4 latin5 latin6
		latin7 latin8 latin9 muleinternal sqlascii tcvn tcvn5712 unicode utf8 vscii win win1250 win1251 win1252 win1253 win1254
		win1255 win1256 win1257 win1258 win866 win874 windows1250 windows1251 windows1252 windows1253 windows1254 windows1255
		windows1256 windows1257 windows1258 windows866 windows874`) {
		names[name] = true
	}
	return names
}()

// setCommand is SET and RESET.
func setCommand(w *walker, m proto.Message) {
	s := m.(*pg.VariableSetStmt)
	name := lowerASCII(s.Name)
	switch s.Kind {
	case pg.VariableSetKind_VAR_RESET_ALL:
		w.unit.Verb, name = "RESET", "all"
	case pg.VariableSetKind_VAR_RESET:
		w.unit.Verb = "RESET"
	case pg.VariableSetKind_VAR_SET_MULTI:
		if strings.HasPrefix(name, "transaction") { // TRANSACTION, TRANSACTION SNAPSHOT
			w.unit.Kind = KindTransaction
		}
	case pg.VariableSetKind_VAR_SET_VALUE:
		w.setting(name, s.Args)
	case pg.VariableSetKind_VAR_SET_DEFAULT, pg.VariableSetKind_VAR_SET_CURRENT: // what the session began with
	default:
		w.statement.deny("unknown form of SET")
	}
	w.unit.Setting = name
	switch name {
	case settingSearchPath, "all":
		w.statement.SearchPathChanged = true
	}
	w.nodes(s.Args...)
}

// setting notes what SET name TO args does to the session.
func (w *walker) setting(name string, args []*pg.Node) {
	w.checkSetting(name, args)
	switch name {
	case settingRole, settingUser:
		if len(args) == 1 {
			w.unit.Role, _ = literal(args[0])
		}
		if w.unit.Role == "" {
			w.statement.deny("the role is not a literal")
		}
	case settingSearchPath:
		for _, arg := range args {
			schema, ok := literal(arg)
			if !ok {
				w.statement.deny("the search path is not made of literals")
			}
			w.statement.SearchPath = append(w.statement.SearchPath, truncated(schema))
		}
	}
}

// checkSetting denies values under which the server would read text in another way than the parser.
func (w *walker) checkSetting(name string, args []*pg.Node) {
	switch name {
	case settingStrings, settingEncoding:
	default:
		return
	}
	value, ok := "", false
	if len(args) == 1 {
		value, ok = literal(args[0])
	}
	switch {
	case name == settingStrings && !(ok && isOn(value)):
		w.statement.deny("with standard_conforming_strings off the server reads strings in another way than policy")
	case name == settingEncoding && !(ok && SafeClientEncoding(value)):
		w.statement.deny("in this client encoding the server may read text in another way than policy")
	}
}

// isOn is true for the spellings of on, except abbreviations.
func isOn(value string) bool {
	switch lowerASCII(value) {
	case "on", "true", "yes", "1":
		return true
	}
	return false
}

// storedSetting is a SET within another statement, which holds later or elsewhere.
func (w *walker) storedSetting(s *pg.VariableSetStmt) {
	if s == nil {
		return
	}
	w.unit.Setting = lowerASCII(s.Name)
	if s.Kind == pg.VariableSetKind_VAR_RESET_ALL {
		w.unit.Setting = "all"
	}
	if s.Kind == pg.VariableSetKind_VAR_SET_VALUE {
		w.checkSetting(w.unit.Setting, s.Args)
	}
	w.nodes(s.Args...)
}

// setConfig notes a call of set_config(name, value, is_local) as the SET that it is: a unit of its own.
func (w *walker) setConfig(args []*pg.Node) {
	outer := w.unit
	defer func() { w.unit = outer }()
	w.begin(command{kind: KindSession, verb: "SET"})
	name, ok := "", false
	if len(args) == 3 {
		if name, ok = literal(args[0]); !ok && columnName(args[0]) == "name" {
			name, ok = w.listed, w.listed != ""
		}
	}
	if !ok {
		w.statement.deny("set_config() of a setting whose name is not a literal")
		return
	}
	name = lowerASCII(name)
	w.unit.Setting = name
	switch name {
	case settingStrings, settingEncoding:
		w.checkSetting(name, args[1:2])
	case settingRole, settingUser:
		w.setting(name, args[1:2])
	case settingSearchPath:
		w.statement.SearchPathChanged = true
		value, ok := literal(args[1])
		if !ok {
			w.statement.deny("set_config() of search_path to what is not a literal")
		}
		schemas, ok := splitIdentifiers(value)
		if !ok {
			w.statement.deny("set_config() of search_path to a list that can not be read")
		}
		w.statement.SearchPath = append(w.statement.SearchPath, schemas...)
	}
}

// settingListed is the setting of a query like SELECT … FROM pg_settings WHERE name = 'setting', by which pg_dump sets what not every
// server has; "" for all others, and for a setting on which the meaning of later text depends.
func (w *walker) settingListed(s *pg.SelectStmt) string {
	if len(s.FromClause) != 1 || w.ctes["pg_settings"] > 0 {
		return ""
	}
	from := s.FromClause[0].GetRangeVar()
	if from.GetRelname() != "pg_settings" || from.Schemaname != "" && from.Schemaname != "pg_catalog" || from.Alias != nil {
		return ""
	}
	equals := s.WhereClause.GetAExpr()
	if equals.GetKind() != pg.A_Expr_Kind_AEXPR_OP || objectOf(equals.GetName()) != (Object{Name: "="}) || columnName(equals.Lexpr) != "name" {
		return ""
	}
	name, ok := literal(equals.Rexpr)
	switch name = lowerASCII(name); name {
	case settingStrings, settingEncoding, settingSearchPath, settingRole, settingUser:
		return ""
	}
	// A column of another table may be compared in another way: blanks behind a character(n) do not count.
	if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '.') }) {
		return ""
	}
	return name
}

// columnName is the name of a column that is named without a table; else "".
func columnName(n *pg.Node) string {
	if fields := n.GetColumnRef().GetFields(); len(fields) == 1 {
		return fields[0].GetString_().GetSval()
	}
	return ""
}

func showCommand(w *walker, m proto.Message) {
	w.unit.Setting = lowerASCII(m.(*pg.VariableShowStmt).Name)
}

// literal is the value of a constant, or of one that is cast to text.
func literal(n *pg.Node) (string, bool) {
	if c := n.GetTypeCast(); c != nil {
		if names := c.TypeName; objectOf(names.GetNames()).Name != "text" || len(names.ArrayBounds) > 0 {
			return "", false
		}
		n = c.Arg
	}
	c := n.GetAConst()
	switch v := c.GetVal().(type) {
	case *pg.A_Const_Sval:
		return v.Sval.Sval, true
	case *pg.A_Const_Fval:
		return v.Fval.Fval, true
	case *pg.A_Const_Boolval:
		if v.Boolval.Boolval {
			return "true", true
		}
		return "false", true
	case *pg.A_Const_Ival:
		return strconv.Itoa(int(v.Ival.GetIval())), true
	}
	return "", false
}

// splitIdentifiers reads a list of names as the server reads the value of search_path (SplitIdentifierString in varlena.c).
func splitIdentifiers(list string) (names []string, ok bool) {
	l := lexer{text: list}
	skip := func() {
		for isSpace(l.at(0)) {
			l.pos++
		}
	}
	if skip(); l.pos == len(list) {
		return nil, true
	}
	for {
		start := l.pos
		if l.at(0) == '"' {
			if l.doubleQuoted() == tokenUnknown {
				return nil, false
			}
			names = append(names, truncated(strings.ReplaceAll(list[start+1:l.pos-1], `""`, `"`)))
		} else {
			for l.pos < len(list) && list[l.pos] != ',' && !isSpace(list[l.pos]) {
				l.pos++
			}
			if l.pos == start {
				return nil, false
			}
			names = append(names, truncated(lowerASCII(list[start:l.pos])))
		}
		skip()
		switch {
		case l.pos == len(list):
			return names, true
		case list[l.pos] != ',':
			return nil, false
		}
		l.pos++
		skip()
	}
}

// lowerASCII is s with ASCII letters in lower case, as the server folds names.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r | 0x20
		}
		return r
	}, s)
}

// maxName is the length of the longest name, in bytes; the server cuts longer ones ("Identifiers and Key Words" in the manual).
const maxName = 63

// truncated is a name as the server cuts it: between characters.
func truncated(name string) string {
	if len(name) <= maxName {
		return name
	}
	end := maxName
	for end > 0 && !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end]
}
