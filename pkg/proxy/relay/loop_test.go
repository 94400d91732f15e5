package relay

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// A loop that kept its processor while it waits, whatever the runtime says, would hold up each collection until the next sweep.
func TestCollectionsDoNotWaitForALoopThatSleeps(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
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

func TestSteadyStateAllocatesNothing(t *testing.T) {
	s := start(t, true, half(through), half(through))
	request, answer := make([]byte, 100), make([]byte, 300)
	round := func() {
		for _, way := range []struct {
			from, to net.Conn
			data     []byte
		}{{s.client, s.server, request}, {s.server, s.client, answer}} {
			if _, err := way.from.Write(way.data); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(way.to, way.data); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Those of the whole process count, which may have something to do once in a while.
	if n := testing.AllocsPerRun(1000, round); n != 0 {
		t.Errorf("%v allocations a round", n)
	}
}
