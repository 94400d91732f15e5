//go:build conformance

package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport-dev/sallyport/test/env"
)

// A suite is the tests of one package of another module.
type suite struct {
	// module is "path@version" and pkg a directory in it.
	module, pkg string
	// differ are the tests that can not give the same through the proxy, with the reason.
	differ map[string]string
}

// differs is true for a test in s.differ, or one within it.
func (s suite) differs(test string) bool {
	top, _, _ := strings.Cut(test, "/")
	return s.differ[top] != ""
}

// name is the suite's in messages and directories.
func (s suite) name() string {
	path, _, _ := strings.Cut(s.module, "@")
	return strings.Trim(path+"/"+s.pkg, "/.")
}

// source copies the module, as the module proxy gives it, into a directory of the test's: tests of a module that is only
// depended on can not be built in place.
func source(t *testing.T, module string) string {
	t.Helper()
	download := exec.Command("go", "mod", "download", "-json", module)
	download.Dir = t.TempDir() // outside this module, whose go.sum need not know it
	out, err := download.Output()
	if err != nil {
		t.Fatalf("download %s: %v\n%s", module, err, out)
	}
	var found struct{ Dir string }
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "source")
	if err := os.CopyFS(dir, os.DirFS(found.Dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// build compiles the tests of a package in a module's source.
func build(t *testing.T, dir, pkg string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "suite.test")
	command := exec.Command("go", "test", "-c", "-o", binary, "./"+pkg)
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	return binary
}

// outcomes are what tests gave, by name: PASS, FAIL or SKIP.
type outcomes map[string]string

var outcome = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(`)

// temporary is a directory of one run, which some tests have in their names.
var temporary = regexp.MustCompile(`/tmp/[^/]+/[0-9]+`)

// run runs the tests and reads how they ended. A binary that dies has a test "" that failed.
func run(t *testing.T, command *exec.Cmd) (outcomes, string) {
	t.Helper()
	r := env.Execute(t, command)
	found := outcomes{}
	output := bufio.NewScanner(bytes.NewReader([]byte(r.Stdout)))
	output.Buffer(nil, 64<<20)
	ended := false
	for output.Scan() {
		if m := outcome.FindStringSubmatch(output.Text()); m != nil {
			found[temporary.ReplaceAllString(m[2], "tmp")] = m[1]
		}
		ended = ended || output.Text() == "PASS" || output.Text() == "FAIL"
	}
	if err := output.Err(); err != nil {
		t.Fatal(err)
	}
	if !ended {
		found[""] = "FAIL"
	}
	return found, r.Stdout + r.Stderr
}

// excerpt is what a suite printed of one test.
func excerpt(output, test string) string {
	start := strings.Index(output, "=== RUN   "+test+"\n")
	if start < 0 {
		return output[max(0, len(output)-4096):]
	}
	text := output[start:]
	if end := strings.Index(text[1:], "=== RUN   "); end >= 0 {
		text = text[:end+1]
	}
	return text[:min(len(text), 4096)]
}
