package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func writeAll(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoadReadsTheDocumentsOfADirectoryAndParseTheSame(t *testing.T) {
	dir := t.TempDir()
	writeAll(t, dir, map[string]string{
		"2-source.yml": goodSource, "1-target.yaml": goodTarget, "3-policy.yaml": goodPolicy,
		"README": "kind: none", ".hidden.yaml": "kind: none", "policy.yaml.bak": "kind: none",
		"below/target.yaml": "kind: none", "directory.yaml/x": "kind: none",
	})
	loaded, files, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		names = append(names, filepath.Base(file.Path))
	}
	if diff := cmp.Diff([]string{"1-target.yaml", "2-source.yml", "3-policy.yaml"}, names); diff != "" {
		t.Error(diff)
	}
	parsed, err := Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(loaded.Targets, parsed.Targets); diff != "" {
		t.Error(diff)
	}
}

func TestLoadFollowsTheLinksOfAConfigMapMount(t *testing.T) {
	dir := t.TempDir()
	writeAll(t, dir, map[string]string{"..2026_01_01/all.yaml": good})
	for link, target := range map[string]string{"..data": "..2026_01_01", "all.yaml": "..data/all.yaml"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	snapshot, files, err := Load(dir)
	if err != nil || len(files) != 1 || len(snapshot.Targets) != 1 {
		t.Fatalf("got %v, %d files, %v", snapshot, len(files), err)
	}
}

func TestLoadOfAnEmptyDirectoryProtectsNothing(t *testing.T) {
	snapshot, files, err := Load(t.TempDir())
	if err != nil || len(files) != 0 || !snapshot.Empty() {
		t.Errorf("got %v, %v, %v", snapshot, files, err)
	}
}

func TestLoadOfAMissingDirectoryIsAnError(t *testing.T) {
	snapshot, _, err := Load(filepath.Join(t.TempDir(), "missing"))
	if snapshot != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, %v", snapshot, err)
	}
}

func TestLoadReportsFilesThatItCanNotRead(t *testing.T) {
	dir := t.TempDir()
	writeAll(t, dir, map[string]string{"bad.yaml": "{", "large.yaml": strings.Repeat("#", MaxFileBytes+1)})
	if err := unix.Mkfifo(filepath.Join(dir, "fifo.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	snapshot, _, err := Load(dir)
	want := []string{
		filepath.Join(dir, "bad.yaml") + ":1:1: is no YAML: did not find expected node content",
		filepath.Join(dir, "fifo.yaml") + ": is no regular file",
		filepath.Join(dir, "large.yaml") + ": is too large; expected at most 1048576 bytes",
		filepath.Join(dir, "link.yaml") + ": no such file or directory",
	}
	if diff := cmp.Diff(want, problemsOf(t, snapshot, err)); diff != "" {
		t.Error(diff)
	}
}

func TestLoadBoundsWhatItReads(t *testing.T) {
	for name, files := range map[string]int{"by the number of bytes": MaxTotalBytes/MaxFileBytes + 1, "by the number of files": MaxFiles + 1} {
		t.Run(name, func(t *testing.T) {
			content := "# nothing\n"
			if files < MaxFiles {
				content = strings.Repeat("#", MaxFileBytes)
			}
			dir := t.TempDir()
			for i := range files {
				writeAll(t, dir, map[string]string{strings.Repeat("x", 1+i%100) + string(rune('a'+i/100)) + ".yaml": content})
			}
			snapshot, _, err := Load(dir)
			if got := problemsOf(t, snapshot, err); len(got) != 1 || !strings.HasPrefix(got[0], dir+": has too much") {
				t.Errorf("got %v", got)
			}
		})
	}
}
