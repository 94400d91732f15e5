package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// A CopyFormat is the form of the data of a COPY; "COPY" in the PostgreSQL manual.
type CopyFormat struct {
	// From is true for COPY FROM, whose data comes from the client.
	From        bool
	Binary, CSV bool
	// Header is true when the first line names the columns.
	Header bool
	// Delimiter, Quote and Escape are one byte each; the last two are of the CSV format alone.
	Delimiter, Quote, Escape byte
	// Null stands for NULL; it is ASCII.
	Null string
	// Unknown is why the options do not tell the form of the data; "" for nearly all.
	Unknown string
}

// copyFormat reads the options of COPY. The server refuses what it does not take; here it is enough never to take one form for another.
func copyFormat(s *pg.CopyStmt) *CopyFormat {
	f := &CopyFormat{From: s.IsFrom}
	given := map[string]string{}
	for _, n := range s.Options {
		o := n.GetDefElem()
		name := o.GetDefname()
		if _, twice := given[name]; twice {
			f.Unknown = "the option " + name + " is there twice"
			return f
		}
		switch name {
		case "freeze", "force_quote", "force_not_null", "force_null", "default", "on_error", "log_verbosity", "convert_selectively":
			given[name] = ""
			continue
		case "format", "delimiter", "null", "header", "quote", "escape", "encoding":
		default:
			f.Unknown = "the option " + name + " is not known"
			return f
		}
		value, ok := optionValue(o.GetArg())
		if !ok || !isASCII(value) {
			f.Unknown = "the value of the option " + name + " can not be read"
			return f
		}
		given[name] = value
	}
	switch strings.ToLower(given["format"]) {
	case "", "text":
		f.Delimiter, f.Null = '\t', `\N`
	case "csv":
		f.CSV, f.Delimiter, f.Quote = true, ',', '"'
	case "binary":
		f.Binary = true
	default:
		f.Unknown = "the format is not known"
	}
	f.char(given, "delimiter", &f.Delimiter)
	f.char(given, "quote", &f.Quote)
	f.Escape = f.Quote
	f.char(given, "escape", &f.Escape)
	if v, ok := given["null"]; ok {
		f.Null = v
	}
	if v, ok := given["header"]; ok {
		f.header(v)
	}
	if v, ok := given["encoding"]; ok && !SafeClientEncoding(v) {
		f.Unknown = "in the encoding a delimiter can be a part of a longer character"
	}
	return f
}

func (f *CopyFormat) char(given map[string]string, name string, to *byte) {
	v, ok := given[name]
	switch {
	case !ok:
	case len(v) != 1:
		f.Unknown = "the option " + name + " is not one character"
	default:
		*to = v[0]
	}
}

// header reads a Boolean as the server does (defGetCopyHeaderChoice in copy.c).
func (f *CopyFormat) header(value string) {
	switch strings.ToLower(value) {
	case "", "true", "on", "1":
		f.Header = true
	case "false", "off", "0":
	default:
		f.Unknown = "the option header can not be read"
	}
}

// optionValue is the value of an option as text; "" for one without.
func optionValue(n *pg.Node) (value string, ok bool) {
	switch v := n.GetNode().(type) {
	case nil:
		return "", true
	case *pg.Node_String_:
		return v.String_.Sval, true
	case *pg.Node_Integer:
		return map[int32]string{0: "0", 1: "1"}[v.Integer.Ival], v.Integer.Ival == 0 || v.Integer.Ival == 1
	case *pg.Node_Boolean:
		if v.Boolean.Boolval {
			return "true", true
		}
		return "false", true
	}
	return "", false
}
