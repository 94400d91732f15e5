package main

import (
	"fmt"
	"strings"
)

// kinds are the documents, in the order of the page.
var kinds = []string{"Target", "CredentialSource", "AccessPolicy"}

// render is a section for each kind and, below it, for each struct that it is made of, in the order in which they are met.
func render(types map[string]structType) (string, error) {
	var b strings.Builder
	done := map[string]bool{}
	var section func(name string, level int) error
	section = func(name string, level int) error {
		if done[name] {
			return nil
		}
		done[name] = true
		typ, ok := types[name]
		if !ok {
			return fmt.Errorf("there is no type %s", name)
		}
		fields, err := flatten(types, typ)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "\n%s %s\n\n%s\n\n| field | type | default | meaning |\n|---|---|---|---|\n", strings.Repeat("#", level), name, typ.doc)
		for _, field := range fields {
			meaning, value := field.explain()
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", field.name, field.typ.describe(types), cell(value), cell(meaning))
		}
		for _, field := range fields {
			if _, ok := types[field.typ.name]; !ok {
				continue
			}
			if err := section(field.typ.name, 3); err != nil {
				return err
			}
		}
		return nil
	}
	for _, kind := range kinds {
		if err := section(kind, 2); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// flatten puts the fields of inlined structs in their place.
func flatten(types map[string]structType, typ structType) ([]field, error) {
	var fields []field
	for _, field := range typ.fields {
		if !field.inline {
			fields = append(fields, field)
			continue
		}
		inner, ok := types[field.typ.name]
		if !ok {
			return nil, fmt.Errorf("type %s has an unknown type %s in it", typ.name, field.typ.name)
		}
		fields = append(fields, inner.fields...)
	}
	return fields, nil
}

// explain splits the comment into what the field means and its default, which the sentence "Default: …." gives.
func (f field) explain() (meaning, value string) {
	meaning = f.doc
	if rest, ok := strings.CutPrefix(meaning, f.goName+" "); ok {
		meaning = "`" + f.name + "` " + rest
	}
	if before, after, ok := strings.Cut(meaning, "Default: "); ok {
		var rest string
		value, rest, _ = strings.Cut(after+" ", ". ")
		return strings.TrimSpace(before + rest), value
	}
	if !f.optional {
		return meaning, "required"
	}
	return meaning, "none"
}

// describe names the type as the page does: structs link to their section.
func (t fieldType) describe(types map[string]structType) string {
	name := t.name
	if _, ok := types[name]; ok {
		name = fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	} else if name == "int" {
		name = "integer"
	}
	if t.list {
		return "list of " + name
	}
	return name
}

// cell keeps text from ending a cell of a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
