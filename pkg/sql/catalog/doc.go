// Package catalog is a picture of one PostgreSQL database's catalog: its relations with their columns, its types, and the
// functions, operators and casts that are not the server's own. With it a parse tree can be read as the server reads it: which
// column a name is, what a view is made of, what a function does.
//
// [Load] takes the picture, over a connection of an ordinary role; a [Catalog] does not change afterwards and is safe for
// concurrent use. The package knows nothing of masks or policies.
package catalog
