// Package kernels boots other kernels and runs the tests of capture there; see run. Its own test says which programs the running
// kernel's verifier takes.
package kernels

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// objects are the compiled programs as they are committed.
const objects = "../../bpf/*.o"

// TestVerifierTakesEveryProgram loads each program alone, so that the log names the one that is at fault.
func TestVerifierTakesEveryProgram(t *testing.T) {
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(objects)
	if err != nil || len(files) == 0 {
		t.Fatalf("no object is at %s: %v", objects, err)
	}
	for _, file := range files {
		spec, err := ebpf.LoadCollectionSpec(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range spec.Maps {
			// Maps of the test's own: they go with it.
			m.Pinning = ebpf.PinNone
		}
		for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
			t.Run(name, func(t *testing.T) { load(t, spec, name) })
		}
	}
}

func load(t *testing.T, spec *ebpf.CollectionSpec, name string) {
	t.Helper()
	// Only what this program needs.
	alone := spec.Copy()
	for other := range alone.Programs {
		if other != name {
			delete(alone.Programs, other)
		}
	}
	loaded, err := ebpf.NewCollectionWithOptions(alone, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
	if verifier := (*ebpf.VerifierError)(nil); errors.As(err, &verifier) {
		t.Fatalf("%+v", verifier)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	t.Log(loaded.Programs[name].VerifierLog)
}
