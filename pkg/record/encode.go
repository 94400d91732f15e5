package record

import (
	"encoding/base64"
	"strconv"
	"time"
)

// What is written for every session is encoded by hand, in the form that encoding/json gives the types' tags: a short session
// writes little else.

type encoder struct{ buf []byte }

func newEncoder() encoder { return encoder{make([]byte, 0, 640)} } // mostly enough

// member begins one.
func (e *encoder) member(name string) {
	if len(e.buf) > 0 {
		e.buf = append(e.buf, ',')
	}
	e.buf = append(append(append(e.buf, '"'), name...), `":`...)
}

func (e *encoder) text(name, value string) {
	e.member(name)
	e.buf = appendString(e.buf, value)
}

func (e *encoder) optional(name, value string) {
	if value != "" {
		e.text(name, value)
	}
}

func (e *encoder) unsigned(name string, n uint64) {
	e.member(name)
	e.buf = strconv.AppendUint(e.buf, n, 10)
}

func (e *encoder) integer(name string, n int64) {
	e.member(name)
	e.buf = strconv.AppendInt(e.buf, n, 10)
}

func (e *encoder) signature(signature []byte) {
	if len(signature) > 0 {
		e.member("signature")
		e.buf = append(base64.StdEncoding.AppendEncode(append(e.buf, '"'), signature), '"')
	}
}

func (e *encoder) meta(m *Meta) {
	e.member("workload")
	e.buf = append(e.buf, `{"name":`...)
	e.buf = appendString(e.buf, m.Workload.Name)
	e.text("cgroup", m.Workload.Cgroup)
	e.unsigned("pid", uint64(m.Workload.PID))
	e.unsigned("uid", uint64(m.Workload.UID))
	e.text("comm", m.Workload.Comm)
	if m.Workload.ProcessUnknown {
		e.member("processUnknown")
		e.buf = append(e.buf, "true"...)
	}
	e.buf = append(e.buf, '}')
	e.text("target", m.Target)
	e.text("protocol", m.Protocol)
	e.text("destination", m.Destination)
	e.optional("upstream", m.Upstream)
	e.optional("node", m.Node)
}

func (e *encoder) ending(x *Ending) {
	e.text("reason", x.Reason)
	e.unsigned("operations", x.Operations)
	e.unsigned("denied", x.Denied)
	e.integer("rows", x.Rows)
	e.integer("bytes", x.Bytes)
	if x.ResultsLost > 0 {
		e.unsigned("resultsLost", x.ResultsLost)
	}
	e.integer("nanoseconds", int64(x.Duration))
}

func (o *openEvent) fragment() Fragment {
	e := newEncoder()
	e.integer("version", int64(o.Version))
	e.optional("session", o.Session)
	e.meta(&o.Meta)
	return e.buf
}

func (l *openLine) fragment() Fragment {
	e := newEncoder()
	e.text("session", l.Session)
	e.text("first", l.First)
	e.optional("file", l.File)
	e.meta(&l.Meta)
	e.signature(l.Signature)
	return e.buf
}

func (x *Ending) fragment() Fragment {
	e := newEncoder()
	e.ending(x)
	return e.buf
}

func (l *sealLine) fragment() Fragment {
	e := newEncoder()
	e.text("session", l.Session)
	e.ending(&l.Ending)
	e.unsigned("events", l.Events)
	e.text("last", l.Last)
	e.text("sealed", l.Sealed)
	e.signature(l.Signature)
	return e.buf
}

func (l *sealEvent) fragment() Fragment {
	e := newEncoder()
	e.unsigned("events", l.Events)
	e.text("last", l.Last)
	e.signature(l.Signature)
	return e.buf
}

// timeText is a time as lines hold it.
func timeText(t time.Time) string { return string(appendTime(nil, t)) }
