package postgres

import (
	"errors"

	"github.com/sallyport-dev/sallyport/pkg/proxy/postgres/internal/rewrite"
	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/lineage"
)

// formats are the forms of the data of the COPYs among the statements of a script; nil when there are none. EXECUTE may be one, of
// what a Parse message prepared.
func (m *machine) formats(script *sql.Script) (all []*sql.CopyFormat) {
	for i, st := range script.Statements {
		format := st.Copy
		if b := m.statements.find([]byte(st.Executes)); st.Executes != "" && b != nil {
			if p, known := m.statements.now(b, m.batch); known && p != nil && p.index < len(p.script.Statements) {
				format = p.script.Statements[p.index].Copy
			}
		}
		if format == nil {
			continue
		}
		if all == nil {
			all = make([]*sql.CopyFormat, len(script.Statements))
		}
		all[i] = format
	}
	return all
}

// copyOut is what masks the data of a COPY whose CopyOutResponse has this body; nil when it passes.
func (t *trace) copyOut(f *sql.CopyFormat, statement int, body []byte) (rewrite.Copy, error) {
	r := reader{p: body}
	overall, n := r.byte(), r.uint16()
	for range n {
		r.uint16()
	}
	switch {
	case !r.end():
		return nil, errors.New("malformed CopyOutResponse")
	case f == nil || (overall == formatBinary) != f.Binary:
		return nil, errors.New("COPY in another format than was asked for")
	}
	st, err := t.statement(statement)
	if err != nil {
		return nil, err
	}
	columns := make([]rewrite.Value, n)
	any := false
	for i := range columns {
		v := t.column(st, i, n, 0, 0)
		typ, mod := t.typeOf(v)
		if typ == 0 && len(v.Masks) == 0 && overall == formatText {
			typ = oidText // for the detectors
		}
		columns[i] = t.value(v, typ, mod, int16(overall))
		any = any || columns[i] != nil
	}
	if !any {
		return nil, nil
	}
	return rewrite.NewCopy(f, columns), nil
}

// typeOf is the type of a column of which the server does not tell it; 0 when it is not known.
func (t *trace) typeOf(v lineage.Value) (typ uint32, mod int32) {
	if t.view == nil || v.Relation == 0 {
		return 0, -1
	}
	if r := t.view.picture.catalog.Relation(v.Relation); r != nil {
		if c := r.Attribute(v.Attribute); c != nil {
			return c.Type, c.Typmod
		}
	}
	return 0, -1
}

// copyDenied is why the data of the COPY at i can not be masked; f is nil when it is none.
func (t *trace) copyDenied(f *sql.CopyFormat, i int) string {
	const unknownTypes = "binary data whose types are not known can not be looked through"
	var st *lineage.Statement
	if i < len(t.statements) {
		st = &t.statements[i]
	}
	switch {
	case f == nil || f.From || !t.rules.Detects() && (st == nil || st.Reach.Empty()):
		return ""
	case f.Unknown != "":
		return "the form of the data of COPY can not be told: " + f.Unknown
	case !f.Binary || !t.rules.Detects():
		return ""
	case st == nil || st.Opaque:
		return unknownTypes
	}
	for _, v := range st.Columns {
		if typ, _ := t.typeOf(v); typ == 0 && len(v.Masks) == 0 {
			return unknownTypes
		}
	}
	return ""
}
