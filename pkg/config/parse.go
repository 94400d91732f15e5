package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// object is what the kinds of documents have in common.
type object interface {
	Default()
	Validate() []v1alpha1.FieldError
}

// newObject is an empty document of a kind, or nil for an unknown kind.
func newObject(kind string) object {
	switch kind {
	case v1alpha1.KindTarget:
		return &v1alpha1.Target{}
	case v1alpha1.KindCredentialSource:
		return &v1alpha1.CredentialSource{}
	case v1alpha1.KindAccessPolicy:
		return &v1alpha1.AccessPolicy{}
	}
	return nil
}

// A document is one parsed document and where its fields stand.
type document struct {
	file       string
	kind, name string
	object     object
	positions  map[string]position
	// faulty are the fields that something is wrong with in the document by itself.
	faulty map[string]bool
}

// valid is true when nothing is wrong with the document by itself.
func (d *document) valid() bool { return len(d.faulty) == 0 }

// isFaulty is true when the field or an ancestor of it has a problem.
func (d *document) isFaulty(field string) bool {
	for path := field; path != ""; path = path[:max(0, strings.LastIndexAny(path, ".["))] {
		if d.faulty[path] {
			return true
		}
	}
	return false
}

// problem is a problem with a field of the document; the field's nearest ancestor that is there gives the place.
func (d *document) problem(field, message string) Problem {
	at := d.positions[""]
	for path := field; path != ""; path = path[:max(0, strings.LastIndexAny(path, ".["))] {
		if found, ok := d.positions[path]; ok {
			at = found
			break
		}
	}
	return d.problemAt(at, field, message)
}

func (d *document) problemAt(at position, field, message string) Problem {
	return Problem{File: d.file, Line: at.line, Column: at.column, Kind: printable(d.kind), Name: printable(d.name), Field: field, Message: message}
}

// place is where the document begins, for messages: file:line.
func (d *document) place() string { return fmt.Sprintf("%s:%d", d.file, d.positions[""].line) }

// Parse does what Load does, from the content of files. The error is an *Error.
func Parse(files []handoff.File) (*Snapshot, error) {
	var (
		documents []*document
		bad       Error
	)
	for _, file := range files {
		found, problems := parseFile(file)
		documents = append(documents, found...)
		bad.Problems = append(bad.Problems, problems...)
	}
	snapshot, problems := build(documents)
	bad.Problems = append(bad.Problems, problems...)
	if err := bad.orNil(); err != nil {
		return nil, err
	}
	return snapshot, nil
}

// parseFile parses the documents of one file. A syntax error ends the file: what follows it has no certain meaning.
func parseFile(file handoff.File) (documents []*document, problems []Problem) {
	if len(file.Content) > MaxFileBytes {
		return nil, []Problem{{File: file.Path, Message: fmt.Sprintf("is too large; expected at most %d bytes", MaxFileBytes)}}
	}
	yamlDecoder := yaml.NewDecoder(bytes.NewReader(file.Content))
	for {
		var root yaml.Node
		err := yamlDecoder.Decode(&root)
		if errors.Is(err, io.EOF) {
			return documents, problems
		}
		if err != nil {
			return documents, append(problems, syntaxProblem(file.Path, err))
		}
		if len(root.Content) == 0 || isBlank(root.Content[0]) {
			continue
		}
		document, found := parseDocument(file.Path, root.Content[0])
		documents = append(documents, document)
		problems = append(problems, found...)
	}
}

// isBlank is true for a document of nothing but comments.
func isBlank(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" && node.Value == ""
}

// parseDocument decodes and validates one document. The document's object is nil when its kind is not known.
func parseDocument(file string, root *yaml.Node) (*document, []Problem) {
	document := &document{file: file, kind: scalarAt(root, "kind"), name: scalarAt(root, "metadata", "name"),
		positions: map[string]position{"": positionOf(root)}, faulty: map[string]bool{}}
	var problems []Problem
	add := func(problem Problem) {
		problems = append(problems, problem)
		document.faulty[problem.Field] = true
	}

	if root.Kind != yaml.MappingNode {
		add(document.problem("", fmt.Sprintf("found %s; expected a mapping with apiVersion, kind, metadata and spec", describe(root))))
		return document, problems
	}
	if version := scalarAt(root, "apiVersion"); version != v1alpha1.APIVersion {
		add(document.problemAt(nodePosition(root, "apiVersion"), "apiVersion",
			foundOrMissing(version)+"; expected "+v1alpha1.APIVersion))
		return document, problems
	}
	object := newObject(document.kind)
	if object == nil {
		kind := document.kind
		document.kind = ""
		add(document.problemAt(nodePosition(root, "kind"), "kind", foundOrMissing(kind)+"; expected "+expectedKind(kind)))
		return document, problems
	}
	decoder := &decoder{positions: document.positions, report: func(at position, field, message string) {
		add(document.problemAt(at, field, message))
	}}
	decoder.decode(root, reflect.ValueOf(object).Elem(), "", 0)
	if decoder.stopped {
		return document, problems
	}
	document.object = object
	object.Default()
	invalid := append(emptyExpressions(object, document.positions), object.Validate()...)
	// A field that could not be read is not also said to be missing.
	invalid = slices.DeleteFunc(invalid, func(e v1alpha1.FieldError) bool { return document.isFaulty(e.Field) })
	for _, e := range invalid {
		add(document.problem(e.Field, e.Message))
	}
	return document, problems
}

// emptyExpressions refuses when: "" where a rule without when is meant: a template that rendered to nothing must not turn
// a conditional rule into one that matches everything.
func emptyExpressions(object object, positions map[string]position) []v1alpha1.FieldError {
	accessPolicy, ok := object.(*v1alpha1.AccessPolicy)
	if !ok {
		return nil
	}
	var found []v1alpha1.FieldError
	for i, rule := range accessPolicy.Spec.Rules {
		field := fmt.Sprintf("spec.rules[%d].when", i)
		if _, written := positions[field]; written && strings.TrimSpace(rule.When) == "" {
			found = append(found, v1alpha1.FieldError{Field: field,
				Message: "is empty; expected an expression, or no field for a rule that matches everything"})
		}
	}
	return found
}

func foundOrMissing(value string) string {
	if value == "" {
		return "is missing"
	}
	return fmt.Sprintf("found %q", value[:min(len(value), 64)])
}

func expectedKind(kind string) string {
	kinds := []string{v1alpha1.KindAccessPolicy, v1alpha1.KindCredentialSource, v1alpha1.KindTarget}
	if name := nearest(kind, kinds); kind != "" && name != "" {
		return name
	}
	return "one of " + strings.Join(kinds, ", ")
}

// child is the value of a mapping's key, or nil.
func child(node *yaml.Node, key string) *yaml.Node {
	node = resolve(node)
	if node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}

// scalarAt is the string at a path of keys, or "".
func scalarAt(node *yaml.Node, keys ...string) string {
	for _, key := range keys {
		if node = child(node, key); node == nil {
			return ""
		}
	}
	if node = resolve(node); node.Kind != yaml.ScalarNode || node.ShortTag() != "!!str" {
		return ""
	}
	return node.Value
}

// nodePosition is where a key's value stands, or where the mapping begins without it.
func nodePosition(node *yaml.Node, key string) position {
	if value := child(node, key); value != nil {
		return positionOf(value)
	}
	return positionOf(node)
}

var (
	yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	// yamlAnchor is cut out of messages: whoever forgets the quotes around a password that begins with * finds it there.
	yamlAnchor = regexp.MustCompile(`'[^']*'`)
)

// syntaxProblem takes the line out of the parser's message, which has no column.
func syntaxProblem(file string, err error) Problem {
	problem := Problem{File: file}
	message := err.Error()
	if match := yamlLine.FindStringSubmatch(message); match != nil {
		message = message[len(match[0]):]
		if line, err := strconv.Atoi(match[1]); err == nil {
			problem.Line, problem.Column = line, 1
		}
	}
	if problem.Line == 0 && !strings.HasPrefix(message, "unknown anchor") { // the parser does not tell the first line
		problem.Line, problem.Column = 1, 1
	}
	problem.Message = "is no YAML: " + yamlAnchor.ReplaceAllString(message, "'…'")
	return problem
}
