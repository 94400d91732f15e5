package postgres

import "time"

const (
	// maxInflight is how many answers may be due before the client has to wait.
	maxInflight = 16 << 10
	// keptInflight is the largest queue that a session keeps while nothing is due.
	keptInflight = 256
)

// What an answer is due to.
type due uint8

const (
	dueQuery due = iota
	dueParse
	dueBind
	dueDescribe
	dueExecute
	dueClose
	dueSync
	dueFunctionCall
	dueCopyEnd // nothing is due: CopyDone or CopyFail was sent before the server asked for data
)

// An expected is one message of the client that the server has not fully answered.
type expected struct {
	kind   due
	denied *denial // the server got something that it refuses, and its error becomes this

	// What is recorded when the answer is complete; op 0 means nothing.
	op          uint64
	started     time.Duration // since the machine's start
	rows, bytes int64         // DataRow and CopyData messages; bytes of all messages
	tagged      int64         // rows that command tags tell, if counted
	counted     bool
	failed      bool
	code        [5]byte // SQLSTATE, if failed

	statement *binding[*plan]  // parse, close: what it changes when the server confirms
	portal    *binding[portal] // bind, close
	plan      *plan            // parse
	bound     portal           // bind
	masked    *answers         // query, parse, bind, execute, in a session with masks
	own       bool             // describe: the proxy asked for it, and the answer is for the execute that follows
	changes   []change         // query, execute: what its PREPAREs and DEALLOCATEs change when it is complete
	several   bool             // … which are in a string of several statements
}

// A change is what one PREPARE or DEALLOCATE does.
type change struct {
	binding *binding[*plan] // nil for DEALLOCATE ALL
	plan    *plan           // nil for DEALLOCATE
}

// endsBatch is true for what the server answers with ReadyForQuery.
func (e *expected) endsBatch() bool {
	return e.kind == dueSync || e.kind == dueQuery || e.kind == dueFunctionCall
}

// hasRows is true for what the server may answer with DataRow.
func (e *expected) hasRows() bool {
	return (e.kind == dueQuery || e.kind == dueExecute) && e.denied == nil
}

// inflight is a queue in a ring.
type inflight struct {
	ring    []expected // its length is a power of two; what is not in the queue is zero
	head, n int
}

// sqlstate is "" for what did not fail.
func (e *expected) sqlstate() string {
	if !e.failed {
		return ""
	}
	return string(e.code[:])
}

// push adds a zeroed entry at the end.
func (q *inflight) push() *expected {
	if q.n == len(q.ring) {
		grown := make([]expected, max(8, 2*len(q.ring)))
		for i := range q.n {
			grown[i] = *q.at(i)
		}
		q.ring, q.head = grown, 0
	}
	q.n++
	return q.at(q.n - 1)
}

// at is the i-th from the front.
func (q *inflight) at(i int) *expected { return &q.ring[(q.head+i)&(len(q.ring)-1)] }

// front is nil when nothing is due.
func (q *inflight) front() *expected {
	if q.n == 0 {
		return nil
	}
	return q.at(0)
}

func (q *inflight) pop() {
	*q.at(0) = expected{} // do not keep alive what it points to
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	if q.n == 0 {
		q.head = 0 // the next round uses the same memory
		if len(q.ring) > keptInflight {
			q.ring = nil
		}
	}
}

// remove takes the i-th from the front out.
func (q *inflight) remove(i int) {
	for ; i > 0; i-- {
		*q.at(i) = *q.at(i - 1)
	}
	q.pop()
}
