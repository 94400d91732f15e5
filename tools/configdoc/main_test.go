package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPageIsWhatTheTypesGive(t *testing.T) {
	var page bytes.Buffer
	if err := generate(&page, "../../"+source); err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(committed), page.String()); diff != "" {
		t.Errorf("docs/configuration.md is stale; run: go run ./tools/configdoc > docs/configuration.md\n%s", diff)
	}
}

func TestCommentsBecomeTables(t *testing.T) {
	const content = `package p
// Target is a thing.
type Target struct {
	Meta ` + "`yaml:\",inline\"`" + `
	// Mode is "a" or
	// "b|c". Default: a. It matters.
	Mode string ` + "`yaml:\"mode,omitempty\"`" + `
	// Ports are numbers. At least one.
	Ports []int ` + "`yaml:\"ports\"`" + `
	unseen int
}
// Meta is first.
type Meta struct {
	// Name is a name.
	Name *Name ` + "`yaml:\"name,omitempty\"`" + `
}
// Name is made of text.
type Name struct {
	// Text is text. Default: nothing.
	Text string ` + "`yaml:\"text,omitempty\"`" + `
}
type CredentialSource struct{}
type AccessPolicy struct{}
`
	const want = `
## Target

Target is a thing.

| field | type | default | meaning |
|---|---|---|---|
| ` + "`name` | [Name](#name) | none | `name`" + ` is a name. |
| ` + "`mode` | string | a | `mode`" + ` is "a" or "b\|c". It matters. |
| ` + "`ports`" + ` | list of integer | required | ` + "`ports`" + ` are numbers. At least one. |

### Name

Name is made of text.

| field | type | default | meaning |
|---|---|---|---|
| ` + "`text` | string | nothing | `text`" + ` is text. |
`
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := generate(&page, dir); err != nil {
		t.Fatal(err)
	}
	got, _, _ := strings.Cut(strings.TrimPrefix(page.String(), intro), "\n## CredentialSource")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFieldWithoutACommentIsAnError(t *testing.T) {
	dir := t.TempDir()
	content := "package p\ntype Target struct {\n\tA string `yaml:\"a\"`\n}\n"
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := generate(&bytes.Buffer{}, dir); err == nil || !strings.Contains(err.Error(), "Target: field A has no comment") {
		t.Errorf("got %v", err)
	}
}
