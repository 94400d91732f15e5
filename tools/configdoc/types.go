package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
)

// A structType is one struct of the documents.
type structType struct {
	name, doc string
	fields    []field
}

// A field is one field of a struct as a document has it.
type field struct {
	goName, name string
	doc          string
	optional     bool
	inline       bool
	typ          fieldType
}

// A fieldType is a basic type or a struct, or a list of these.
type fieldType struct {
	name string
	list bool
}

// readTypes reads the structs of the package in a directory, by name.
func readTypes(dir string) (map[string]structType, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	types := map[string]structType{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, declaration := range file.Decls {
			general, ok := declaration.(*ast.GenDecl)
			if !ok || general.Tok != token.TYPE {
				continue
			}
			for _, spec := range general.Specs {
				named := spec.(*ast.TypeSpec)
				structure, ok := named.Type.(*ast.StructType)
				if !ok {
					continue
				}
				fields, err := readFields(structure)
				if err != nil {
					return nil, fmt.Errorf("%s: %s: %w", path, named.Name.Name, err)
				}
				types[named.Name.Name] = structType{name: named.Name.Name, doc: oneLine(general.Doc.Text()), fields: fields}
			}
		}
	}
	return types, nil
}

// readFields gives the fields that have a yaml tag.
func readFields(structure *ast.StructType) ([]field, error) {
	var fields []field
	for _, member := range structure.Fields.List {
		if member.Tag == nil {
			continue
		}
		tag, ok := reflect.StructTag(strings.Trim(member.Tag.Value, "`")).Lookup("yaml")
		if !ok {
			continue
		}
		typ, err := readType(member.Type)
		if err != nil {
			return nil, err
		}
		name, options, _ := strings.Cut(tag, ",")
		read := field{name: name, doc: oneLine(member.Doc.Text()), typ: typ, optional: options == "omitempty", inline: options == "inline"}
		if !read.inline {
			read.goName = member.Names[0].Name
			if read.doc == "" {
				return nil, fmt.Errorf("field %s has no comment", read.goName)
			}
		}
		fields = append(fields, read)
	}
	return fields, nil
}

func readType(expression ast.Expr) (fieldType, error) {
	switch typ := expression.(type) {
	case *ast.Ident:
		return fieldType{name: typ.Name}, nil
	case *ast.StarExpr:
		return readType(typ.X)
	case *ast.ArrayType:
		element, err := readType(typ.Elt)
		element.list = true
		return element, err
	}
	return fieldType{}, fmt.Errorf("type %T is not understood", expression)
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
