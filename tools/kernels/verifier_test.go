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
	"github.com/cilium/ebpf/features"
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
			t.Run(filepath.Base(file)+"/"+name, func(t *testing.T) { load(t, spec, name) })
		}
	}
}

// load asks the kernel for one program, and the probe for the program's type: they must agree. A kernel that does not know the
// type, or refuses it to everybody, as many do with LSM, refuses the program.
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
	if err == nil {
		defer loaded.Close()
		t.Log(loaded.Programs[name].VerifierLog)
		return
	}
	var verifier *ebpf.VerifierError
	kind := alone.Programs[name].Type
	if probe := features.HaveProgramType(kind); probe != nil && !errors.As(err, &verifier) {
		t.Logf("no %s program on this kernel: %v", kind, probe)
		return
	}
	t.Errorf("%+v", err)
	// Once more without a level: the error then has the verifier's whole log.
	if _, err := ebpf.NewCollection(alone); errors.As(err, &verifier) {
		t.Errorf("%+v", verifier)
	}
}
