package arch

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// longestFile is how many lines a file may have: what is longer holds more than one thing.
const longestFile = 600

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// skip is a call that leaves a test out. What can not run here must fail here, or nobody would notice.
var skip = regexp.MustCompile(`\b(t|b|f|tb)\.Skip(f|Now)?\(`)

// eachSource calls f with every source file of the repository that somebody wrote.
func eachSource(t *testing.T, f func(path string, content []byte)) {
	t.Helper()
	root := filepath.Join("..", "..")
	found := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); path != root && (strings.HasPrefix(name, ".") || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(path) {
		case ".go", ".c", ".h":
		default:
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !generated.Match(content) {
			found++
			f(path, content)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Fatal("no source file found")
	}
}

func TestFilesHoldOneThing(t *testing.T) {
	eachSource(t, func(path string, content []byte) {
		if lines := bytes.Count(content, []byte("\n")); lines > longestFile {
			t.Errorf("%s has %d lines, more than %d", path, lines, longestFile)
		}
	})
}

func TestNoTestIsLeftOut(t *testing.T) {
	eachSource(t, func(path string, content []byte) {
		if !strings.HasSuffix(path, "_test.go") && !strings.Contains(path, filepath.Join("test", "env")) {
			return
		}
		if found := skip.Find(content); found != nil {
			t.Errorf("%s has %s…)", path, found)
		}
	})
}
