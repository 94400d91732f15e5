package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

// Limits on the tree of one document, aliases followed: a few lines of aliases can stand for billions of nodes.
const (
	maxNodes = 50_000
	maxDepth = 64
)

// position is a place in a file; both count from 1.
type position struct{ line, column int }

// A decoder fills the Go value of one document from its nodes, strictly, and remembers where each field stands.
type decoder struct {
	positions map[string]position
	// report takes a problem at a position.
	report func(at position, field, message string)
	nodes  int
	// stopped is true when a limit was hit; the value is filled in part then.
	stopped bool
}

// decode fills v, which is settable, from the node.
func (d *decoder) decode(node *yaml.Node, v reflect.Value, field string, depth int) {
	node = resolve(node)
	if d.stopped {
		return
	}
	if d.nodes++; d.nodes > maxNodes || depth > maxDepth {
		d.stopped = true
		d.report(positionOf(node), "", fmt.Sprintf("is too large or too deep, aliases followed; expected at most %d values, %d deep",
			maxNodes, maxDepth))
		return
	}
	if _, ok := d.positions[field]; !ok || node.Kind == yaml.ScalarNode {
		d.positions[field] = positionOf(node)
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(node, v.Elem(), field, depth+1)
	case reflect.Struct:
		d.decodeStruct(node, v, field, depth)
	case reflect.Slice:
		d.decodeSlice(node, v, field, depth)
	default:
		d.decodeScalar(node, v, field)
	}
}

func (d *decoder) decodeStruct(node *yaml.Node, v reflect.Value, field string, depth int) {
	secret := v.Type() == reflect.TypeFor[v1alpha1.SecretSource]()
	if node.Kind != yaml.MappingNode {
		message := fmt.Sprintf("found %s; expected a mapping", describe(node))
		if secret {
			message = v1alpha1.InlineSecret
		}
		d.report(positionOf(node), field, message)
		return
	}
	fields := fieldsOf(v.Type())
	known := slices.Sorted(maps.Keys(fields))
	seen := map[string]position{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := resolve(node.Content[i]), node.Content[i+1]
		at := positionOf(node.Content[i])
		index, ok := fields[key.Value]
		if key.Kind != yaml.ScalarNode || !ok {
			// A key of a secret is not quoted: it may be the secret, as in password: {hunter2}.
			if secret {
				d.report(at, field, "has an unknown field; "+v1alpha1.InlineSecret)
			} else {
				d.report(at, join(field, key), unknownField(key, known))
			}
			continue
		}
		name := join(field, key)
		if first, ok := seen[key.Value]; ok {
			d.report(at, name, fmt.Sprintf("is given twice, first in line %d; expected once", first.line))
			continue
		}
		seen[key.Value] = at
		d.positions[name] = at
		d.decode(value, v.FieldByIndex(index), name, depth+1)
	}
}

func (d *decoder) decodeSlice(node *yaml.Node, v reflect.Value, field string, depth int) {
	if node.Kind != yaml.SequenceNode {
		d.report(positionOf(node), field, fmt.Sprintf("found %s; expected a list", describe(node)))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content)))
	for i, item := range node.Content {
		d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", field, i), depth+1)
	}
}

func (d *decoder) decodeScalar(node *yaml.Node, v reflect.Value, field string) {
	tag, expected := "!!str", "a string"
	if v.Kind() == reflect.Int {
		tag, expected = "!!int", "an integer"
	}
	if node.Kind != yaml.ScalarNode || node.ShortTag() != tag {
		if node.Kind == yaml.ScalarNode && tag == "!!str" && node.ShortTag() != "!!null" {
			expected += ": put it in quotes"
		}
		d.report(positionOf(node), field, fmt.Sprintf("found %s; expected %s", describe(node), expected))
		return
	}
	if err := node.Decode(v.Addr().Interface()); err != nil {
		d.report(positionOf(node), field, fmt.Sprintf("found %s out of range; expected %s", describe(node), expected))
	}
}

// resolve follows aliases. A document cannot make them circular without passing through a mapping or list, which the limits bound.
func resolve(node *yaml.Node) *yaml.Node {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

func positionOf(node *yaml.Node) position { return position{node.Line, node.Column} }

// join appends a key to the path of a field.
func join(field string, key *yaml.Node) string {
	name := printable(key.Value)
	if name == key.Value && (name == "" || strings.ContainsAny(name, " .[")) {
		name = strconv.Quote(name)
	}
	if field == "" {
		return name
	}
	return field + "." + name
}

// printable is text that fits a line and does nothing to a terminal.
func printable(text string) string {
	if len(text) > 63 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.QuoteToASCII(text[:min(len(text), 63)])
	}
	return text
}

func unknownField(key *yaml.Node, known []string) string {
	switch {
	case key.Kind != yaml.ScalarNode:
		return fmt.Sprintf("found %s for a key; expected one of %s", describe(key), strings.Join(known, ", "))
	case key.ShortTag() == "!!merge":
		return "is a merge of mappings, which is not understood here; expected the fields to be written out"
	}
	if name := nearest(key.Value, known); name != "" {
		return fmt.Sprintf("is an unknown field; did you mean %s?", name)
	}
	return fmt.Sprintf("is an unknown field; expected one of %s", strings.Join(known, ", "))
}

// describe says what kind of value a node is, without quoting it.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch node.ShortTag() {
	case "!!null":
		return "no value"
	case "!!bool":
		return "a boolean"
	case "!!int":
		return "an integer"
	case "!!float":
		return "a number"
	case "!!str":
		return "a string"
	case "!!timestamp":
		return "a date"
	}
	return "a value of another type"
}
