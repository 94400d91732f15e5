package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Problem is one thing that is wrong, and where.
type Problem struct {
	// File is the path of the file; "" when none is at fault.
	File string `json:"file,omitempty"`
	// Line and Column count from 1; 0 when the problem is with the file or directory as a whole.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Kind and Name are those of the document, as far as it says them.
	Kind string `json:"kind,omitempty"`
	Name string `json:"name,omitempty"`
	// Field is the path of the field, such as spec.endpoints[0].port; "" for the document as a whole.
	Field string `json:"field,omitempty"`
	// Message says what was found and what was expected. It never quotes what may be a secret.
	Message string `json:"message"`
}

// String is "file:line:column: Kind/name: field: message", without the parts that are not known.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if p.File != "" {
		b.WriteString(": ")
	}
	switch {
	case p.Kind != "" && p.Name != "":
		b.WriteString(p.Kind + "/" + p.Name + ": ")
	case p.Kind != "":
		b.WriteString(p.Kind + ": ")
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Error is every problem of a set of documents, in the order of files and lines; never empty.
type Error struct {
	Problems []Problem
}

// Error has one line for each problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, problem := range e.Problems {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// orNil is the error, sorted, or nil when there is no problem.
func (e *Error) orNil() error {
	if len(e.Problems) == 0 {
		return nil
	}
	slices.SortStableFunc(e.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return e
}
