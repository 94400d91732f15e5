package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"
)

// An Entry is one event of a session as an auditor reads it: continued text is joined, and an operation has its result.
type Entry struct {
	Seq  uint64
	Time time.Time
	Type string
	// JSON is the whole event as one object, without prev; an operation's has its "result".
	JSON json.RawMessage
	// Operation is set for operations.
	Operation *OperationEntry
	// Incomplete is true for an event whose continuation was cut off by a crash. It had not been accepted; its JSON lacks
	// what the continuation would say.
	Incomplete bool
}

// An OperationEntry is an operation as it was recorded. Its strings hold the bytes that the session held.
type OperationEntry struct {
	Kind        string
	Text        string
	Fingerprint string
	Executes    []string        // the texts that an EXECUTE runs
	Parameters  json.RawMessage // nil when none were recorded
	Decision    string          // "allow" or "deny"
	Policy      string
	Rule        string
	// Result is nil when the operation was denied, or had not ended.
	Result *Result
}

// Read gives the events of a session in order, without results and seal. It reads what is there: whether it is what was
// written, Verify says. After an error there is nothing more; the error is ErrNotFound, a Fault, or one of the file system.
func Read(dir, id string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := read(dir, id, func(e Entry) bool { return yield(e, nil) }); err != nil {
			yield(Entry{}, fmt.Errorf("read session %s: %w", id, err))
		}
	}
}

func read(dir, id string, yield func(Entry) bool) error {
	if !ValidID(id) {
		return ErrNotFound
	}
	source, err := findSource(dir, id)
	if err != nil {
		return err
	}
	defer source.Close()
	// Results come in any order, before or after later operations, so they are read first.
	results := map[uint64]resultEvent{}
	err = source.each(func(h lineHead, line []byte) (bool, error) {
		if h.typ != typeResult {
			return true, nil
		}
		var r resultEvent
		err := decodeLine(line, &r)
		results[r.Operation] = r
		return true, err
	})
	if err != nil {
		return err
	}
	r := reader{results: results, yield: yield}
	if err := source.each(r.line); err != nil {
		return err
	}
	_, err = r.flush()
	return err
}

// resultEvent is what a result's line says.
type resultEvent struct {
	Operation uint64        `json:"operation"`
	Rows      int64         `json:"rows"`
	Bytes     int64         `json:"bytes"`
	Duration  time.Duration `json:"nanoseconds"`
	Error     string        `json:"error"`
	// Masked is how many values each mask was applied to; nil for none.
	Masked json.RawMessage `json:"masked"`
}

// textEvent is what continues an event.
type textEvent struct {
	Event uint64 `json:"event"`
	Part  int    `json:"part"`
	Data  string `json:"data"`
}

// A reader joins lines into entries.
type reader struct {
	results map[uint64]resultEvent
	yield   func(Entry) bool

	waiting bool // for text events
	head    lineHead
	members []byte // `,"name":…` of head, as far as they were read
	part    int
	parts   int
}

func (r *reader) line(h lineHead, line []byte) (bool, error) {
	if h.typ == typeText {
		return r.text(line)
	}
	if more, err := r.flush(); !more || err != nil {
		return more, err
	}
	if h.typ == typeResult || h.typ == typeSeal || h.typ == typeContinued {
		return true, nil
	}
	var continued struct {
		Parts int `json:"parts"`
	}
	if err := decodeLine(line, &continued); err != nil {
		return false, err
	}
	r.waiting, r.head, r.part, r.parts = true, h, 0, continued.Parts
	r.members = append(r.members[:0], bytes.TrimSuffix(h.rest, []byte("}\n"))...)
	if r.parts > 0 {
		return true, nil
	}
	return r.flush()
}

func (r *reader) text(line []byte) (bool, error) {
	var text textEvent
	if err := decodeLine(line, &text); err != nil {
		return false, err
	}
	if !r.waiting || text.Event != r.head.seq || text.Part != r.part+1 || text.Part > r.parts {
		return false, errors.New("it continues no event")
	}
	r.part++
	if r.part == 1 {
		r.members = append(r.members, ',')
	}
	r.members = append(r.members, text.Data...)
	if r.part == r.parts {
		return r.flush()
	}
	return true, nil
}

// flush hands out the event that waits.
func (r *reader) flush() (bool, error) {
	if !r.waiting {
		return true, nil
	}
	r.waiting = false
	e := Entry{Seq: r.head.seq, Time: r.head.time, Type: r.head.typ, Incomplete: r.part != r.parts}
	members := r.members
	if e.Incomplete {
		members = bytes.TrimSuffix(r.head.rest, []byte("}\n"))
	}
	object := strconv.AppendUint([]byte(`{"seq":`), e.Seq, 10)
	object = append(append(appendTime(append(object, `,"time":"`...), e.Time), `","type":"`...), e.Type...)
	object = append(object, '"')
	if e.Type == typeOpen && r.head.session != "" {
		object = append(append(append(object, `,"session":"`...), r.head.session...), '"')
	}
	object = append(object, members...)
	if e.Type == typeOperation {
		operation, err := r.operation(append(object[:len(object):len(object)], '}'))
		if err != nil {
			return false, err
		}
		e.Operation = operation
		if operation.Result != nil {
			object = append(append(object, `,"result":{`...), NewFragment(resultMembers{
				Rows: operation.Result.Rows, Bytes: operation.Result.Bytes, Duration: operation.Result.Duration, Error: operation.Result.Error,
				Masked: r.results[e.Seq].Masked,
			})...)
			object = append(object, '}')
		}
	}
	e.JSON = append(object, '}')
	if !json.Valid(e.JSON) {
		return false, errors.New("its continuation is no JSON")
	}
	return r.yield(e), nil
}

// resultMembers is a result as an operation's member.
type resultMembers struct {
	Rows     int64         `json:"rows"`
	Bytes    int64         `json:"bytes"`
	Duration time.Duration `json:"nanoseconds"`
	Error    string        `json:"error,omitempty"`

	Masked json.RawMessage `json:"masked,omitempty"`
}

func (r *reader) operation(object []byte) (*OperationEntry, error) {
	var op struct {
		Kind        string          `json:"kind"`
		Text        string          `json:"text"`
		Fingerprint string          `json:"fingerprint"`
		Executes    []string        `json:"executes"`
		Parameters  json.RawMessage `json:"parameters"`
		Decision    string          `json:"decision"`
		Policy      string          `json:"policy"`
		Rule        string          `json:"rule"`
	}
	if err := decodeLine(object, &op); err != nil {
		return nil, err
	}
	entry := &OperationEntry{
		Kind: Unescape(op.Kind), Text: Unescape(op.Text), Fingerprint: op.Fingerprint, Parameters: op.Parameters,
		Decision: op.Decision, Policy: Unescape(op.Policy), Rule: Unescape(op.Rule),
	}
	for _, text := range op.Executes {
		entry.Executes = append(entry.Executes, Unescape(text))
	}
	if result, ok := r.results[r.head.seq]; ok {
		entry.Result = &Result{
			Operation: result.Operation, Rows: result.Rows, Bytes: result.Bytes, Duration: result.Duration, Error: Unescape(result.Error),
		}
	}
	return entry, nil
}
