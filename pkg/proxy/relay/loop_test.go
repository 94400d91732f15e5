package relay

import (
	"runtime"
	"testing"
	"time"
)

// A loop that kept its processor while it waits, whatever the runtime says, would hold up each collection until the next sweep.
func TestCollectionsDoNotWaitForALoopThatSleeps(t *testing.T) {
	e, err := NewEngine(2)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const collections = 20
	began := time.Now()
	for range collections {
		for _, l := range e.loops { // so that the next wait is one that the scheduler is not told of
			done := make(chan struct{})
			if !l.post(func() { close(done) }) {
				t.Fatal("a loop has ended")
			}
			<-done
		}
		runtime.GC()
	}
	if took := time.Since(began); took > collections*sweepEvery/2 {
		t.Errorf("%d collections took %v", collections, took)
	}
}
