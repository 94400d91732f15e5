package lineage

import (
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// Sensitive is the mask of a column, as an index into the masks of a policy; ok is false for a column that has none.
type Sensitive func(r *catalog.Relation, column string) (mask int, ok bool)

// Options say how to take what can not be known.
type Options struct {
	// Strict takes a value of unknown lineage for one that contains every masked column that its statement can reach, and denies
	// functions whose bodies can not be read. Without it such a value contains what its parts contain.
	Strict bool
	// Trusted is true for a function whose result contains no more than its arguments do, and which stores and sends no masked value.
	// nil trusts none.
	Trusted func(schema, name string) bool
}

// A Session is what the meaning of a text depends on, besides the catalog.
type Session struct {
	// SearchPath are all schemas in which an unqualified name may be looked up; pg_catalog and the schemas of temporary tables are so in
	// any case.
	SearchPath []string
	// Changed is what the open transaction did to the catalog, and the picture does not show.
	Changed Changed
}

// A Statement is what one top-level statement shows, stores and uses.
type Statement struct {
	// Columns are what each column of its result contains: of SELECT, RETURNING, EXPLAIN, SHOW, of the query of DECLARE and PREPARE, and
	// the fields of COPY TO in their order. nil with Opaque where even their number is unknown.
	Columns []Value
	Opaque  bool
	// Reach is every mask of what the statement reads or changes: what its errors and notices may tell of.
	Reach Set
	// Added are masks of what triggers of the changed tables may put into any column of the result, whatever the column is.
	Added Set
	// Uses are the masked columns on which the statement's rows or values depend, each mask and place once.
	Uses []Use
	// Denied is why the statement must not run: a masked value would be stored or sent where it is masked no longer, or what the
	// statement does can not be known. "" else.
	Denied string
	// Changes is true where the catalog is another one afterwards; Changed is what of it.
	Changes bool
	Changed Changed
	// Missing is true when a name is not in the catalog: a newer picture may have it.
	Missing bool
	// Declares and Fetches are the names of the cursors of DECLARE and FETCH, "" for others.
	Declares, Fetches string
}

// A Use is a place where a masked column decides on something, such as WHERE.
type Use struct {
	Mask int
	// Place is as SQL names it: WHERE, JOIN, ORDER BY, GROUP BY, HAVING, DISTINCT, LIMIT, FILTER, WINDOW, FUNCTION …
	Place string
}

// A Value is what a column of a result contains.
type Value struct {
	// Masks are those of all masked columns whose values it may contain or be derived from.
	Masks Set
	// Unchanged is true when it is a masked column's value as stored, or one that is not masked.
	Unchanged bool
	// Unknown is true when its lineage could not be found; Masks are then all that the statement can reach.
	Unknown bool
	// Relation and Attribute name the column that it is, unchanged; 0 when it is not one column's value.
	Relation  uint32
	Attribute int16
	// Fields are a row's, nil where they are not known: each is then as the whole.
	Fields []Value
}
