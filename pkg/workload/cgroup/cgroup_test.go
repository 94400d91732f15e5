package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"testing"
	"time"
)

func TestMountPointIsReadFromMountinfo(t *testing.T) {
	for _, test := range []struct {
		name, line, want string
		ok               bool
	}{
		{"the unified hierarchy", "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw", "/sys/fs/cgroup", true},
		{"without optional fields", "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw", "/sys/fs/cgroup/unified", true},
		{"a path with a space", `41 31 0:38 / /mnt/a\040b rw - cgroup2 none rw`, "/mnt/a b", true},
		{"a part of the hierarchy", "41 31 0:38 /docker/x /sys/fs/cgroup rw - cgroup2 none rw", "", false},
		{"version 1", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", "", false},
		{"nonsense", "x", "", false},
		{"nothing", "", "", false},
	} {
		if got, ok := mountPoint(test.line, "cgroup2"); got != test.want || ok != test.ok {
			t.Errorf("%s: %q, %v", test.name, got, ok)
		}
	}
}

func TestCleanRefusesWhatIsNoName(t *testing.T) {
	for name, want := range map[string]string{
		"/":              "/",
		"/a/b":           "/a/b",
		"/a//b/":         "/a/b",
		"/a/./b":         "/a/b",
		"/a..b":          "/a..b",
		"":               "",
		"a":              "",
		"/a/../b":        "",
		"/..":            "",
		"/sys.slice/x y": "/sys.slice/x y",
	} {
		got, err := Clean(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v: want %q", name, got, err, want)
		}
	}
}

func TestContainsAndDepth(t *testing.T) {
	for _, test := range []struct {
		outer, inner string
		want         bool
	}{
		{"/", "/a", true}, {"/", "/", true}, {"/a", "/a", true}, {"/a", "/a/b", true},
		{"/a", "/ab", false}, {"/a/b", "/a", false}, {"/a", "/", false},
	} {
		if got := Contains(test.outer, test.inner); got != test.want {
			t.Errorf("%s contains %s: %v", test.outer, test.inner, got)
		}
	}
	for name, want := range map[string]int{"/": 0, "/a": 1, "/a/b": 2} {
		if got := Depth(name); got != want {
			t.Errorf("depth of %s: %d", name, got)
		}
	}
}

func TestIDsOfRealCgroups(t *testing.T) {
	hierarchy, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	name := "/sallyport-test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if err := os.Mkdir(hierarchy.Dir(name), 0o755); err != nil {
		t.Fatalf("%v (this test needs root)", err)
	}
	defer os.Remove(hierarchy.Dir(name))
	id, err := hierarchy.ID(name)
	if err != nil {
		t.Fatal(err)
	}
	names, err := hierarchy.Names(map[uint64]bool{id: true, 1 << 60: true})
	if err != nil || len(names) != 1 || names[id] != name {
		t.Errorf("names are %v, %v: want %s", names, err, name)
	}
	if _, err := hierarchy.ID(name + "/missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing cgroup: %v", err)
	}
	if _, err := hierarchy.ID(name + "/cgroup.procs"); err == nil {
		t.Error("a file has an id")
	}
	if _, err := (&Hierarchy{Root: "/"}).ID("/tmp"); err == nil {
		t.Error("a directory of another file system has an id")
	}
}
