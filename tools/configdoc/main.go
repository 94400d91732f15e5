// Command configdoc prints docs/configuration.md: a table for each type of the documents, from the Go types and their comments.
// It is run at the root of the repository.
package main

import (
	_ "embed"
	"fmt"
	"io"
	"os"
)

//go:embed intro.md
var intro string

// source is the package of the documents, seen from the root of the repository.
const source = "pkg/api/v1alpha1"

func main() {
	if err := generate(os.Stdout, source); err != nil {
		fmt.Fprintln(os.Stderr, "configdoc:", err)
		os.Exit(1)
	}
}

// generate writes the whole page.
func generate(w io.Writer, dir string) error {
	types, err := readTypes(dir)
	if err != nil {
		return err
	}
	page, err := render(types)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, intro+page)
	return err
}
