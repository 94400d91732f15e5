package lineage

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// masks are the columns that the tests mask: the mask of a column is its index.
var masks = []string{"public.customers.email", "public.customers.ssn", "*.card", "hr.staff.salary", "public.reports_new.secret"}

func sensitive(r *catalog.Relation, column string) (int, bool) {
	for i, pattern := range masks {
		if pattern == r.Schema+"."+r.Name+"."+column || strings.HasPrefix(pattern, "*.") && pattern[2:] == column {
			return i, true
		}
	}
	return 0, false
}

func load(t testing.TB, conn *pgconn.PgConn) *Schema {
	t.Helper()
	c, err := catalog.Load(context.Background(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return New(c, sensitive, Options{Strict: true, Trusted: func(schema, name string) bool { return schema == "public" && name == "trusted" }})
}

// show is a statement in short: the masks of its columns, + where one is unknown, ! where it is one column's value unchanged.
func show(st Statement) string {
	if st.Denied != "" {
		return "denied: " + st.Denied
	}
	if st.Opaque {
		return "opaque"
	}
	var columns []string
	for _, v := range st.Columns {
		s := strings.Trim(fmt.Sprint([]int(v.Masks)), "[]")
		switch {
		case v.Unknown:
			s += "+"
		case v.Unchanged && len(v.Masks) > 0:
			s += "!"
		case s == "":
			s = "-"
		}
		columns = append(columns, s)
	}
	return strings.Join(columns, " ")
}

var session = Session{SearchPath: []string{"public"}}
