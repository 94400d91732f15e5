package workload

import (
	"context"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// place is a part of the real hierarchy; making it needs root.
type place struct {
	t         *testing.T
	hierarchy *cgroup.Hierarchy
	base      string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	hierarchy, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t: t, hierarchy: hierarchy, base: "/sallyport-test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)}
	p.mkdir("")
	return p
}

// mkdir makes a cgroup below the base and yields its name.
func (p *place) mkdir(name string) string {
	p.t.Helper()
	name = p.base + name
	if err := os.Mkdir(p.hierarchy.Dir(name), 0o755); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { os.Remove(p.hierarchy.Dir(name)) })
	return name
}

func (p *place) rmdir(name string) {
	p.t.Helper()
	if err := os.Remove(p.hierarchy.Dir(name)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) id(name string) uint64 {
	p.t.Helper()
	id, err := p.hierarchy.ID(name)
	if err != nil {
		p.t.Fatal(err)
	}
	return id
}

func (p *place) current(s *Source, want ...string) {
	p.t.Helper()
	set, err := s.Current()
	if err != nil {
		p.t.Fatal(err)
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(set)); !slices.Equal(got, want) {
		p.t.Errorf("got %v: want %v", got, want)
	}
}

func TestSetIsWhatSelectorsNameAndWhatWasAskedFor(t *testing.T) {
	p := newPlace(t)
	s := NewSource(p.hierarchy, nobody, zaptest.NewLogger(t))
	p.current(s)
	shop := p.mkdir("/shop")
	a, b, inner := p.mkdir("/jobs"), p.mkdir("/jobs/b"), p.mkdir("/jobs/b/inner")
	if err := s.Select([]string{shop, a + "/*", p.base + "/missing", p.base + "/missing/*", a + "/b/"}); err != nil {
		t.Fatal(err)
	}
	p.current(s, shop, b)
	s.Ask(inner, p.id(inner))
	s.Ask(shop, p.id(shop))
	p.current(s, shop, b, inner)
	if err := s.Select(nil); err != nil {
		t.Fatal(err)
	}
	p.current(s, shop, inner)
	s.Forget(shop)
	p.current(s, inner)
	p.rmdir(inner)
	p.current(s)
	// Another cgroup of the same name was not asked for.
	p.mkdir("/jobs/b/inner")
	p.current(s)
}

// nobody is an agent without processes.
func nobody() []string { return nil }

func TestStarDoesNotStandForTheAgent(t *testing.T) {
	p := newPlace(t)
	jobs := p.mkdir("/jobs")
	a, agents := p.mkdir("/jobs/a"), p.mkdir("/jobs/agent")
	s := NewSource(p.hierarchy, func() []string { return []string{agents + "/proxy"} }, zaptest.NewLogger(t))
	if err := s.Select([]string{jobs + "/*"}); err != nil {
		t.Fatal(err)
	}
	p.current(s, a)
}

func TestBadSelectorsChangeNothing(t *testing.T) {
	p := newPlace(t)
	s := NewSource(p.hierarchy, nobody, zaptest.NewLogger(t))
	if err := s.Select([]string{p.base}); err != nil {
		t.Fatal(err)
	}
	for _, selector := range []string{"", "a/b", "/a/../b"} {
		if err := s.Select([]string{selector}); err == nil {
			t.Errorf("%q was taken", selector)
		}
	}
	p.current(s, p.base)
}

func TestNamesSaysWhetherASelectorMatches(t *testing.T) {
	for _, test := range []struct {
		selector, name string
		want           bool
	}{
		{"/a/b", "/a/b", true},
		{"/a/b", "/a/b/c", false},
		{"/a/*", "/a/b", true},
		{"/a/*", "/a", false},
		{"/a/*", "/a/b/c", false},
		{"/*", "/a", true},
		{"/*", "/", false},
		{"/*", "/a/b", false},
	} {
		s := NewSource(nil, nobody, zaptest.NewLogger(t))
		if err := s.Select([]string{test.selector}); err != nil {
			t.Fatal(err)
		}
		if got := s.Names(test.name); got != test.want {
			t.Errorf("%s and %s: %v", test.selector, test.name, got)
		}
	}
}

func TestChangesAreSeenAsTheyHappen(t *testing.T) {
	p := newPlace(t)
	s := NewSource(p.hierarchy, nobody, zaptest.NewLogger(t))
	jobs := p.base + "/jobs"
	if err := s.Select([]string{jobs + "/*"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sets := make(chan map[string]uint64)
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func() {
			set, err := s.Current()
			if err != nil {
				t.Error(err)
			}
			select {
			case sets <- set:
			case <-ctx.Done():
			}
		})
	}()
	await := func(what string, want ...string) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			select {
			case set := <-sets:
				if slices.Equal(slices.Sorted(maps.Keys(set)), want) {
					return
				}
			case <-deadline:
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	await("nothing")
	p.mkdir("/jobs")
	a := p.mkdir("/jobs/a")
	await("a cgroup of a directory that came later", a)
	p.rmdir(a)
	await("its end")
	b := p.mkdir("/jobs/b")
	await("another one", b)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
