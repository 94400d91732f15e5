package postgres

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/mask"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// An easyJudge allows everything and remembers nothing.
type easyJudge struct {
	nobodyAsks
	seq uint64
}

func (j *easyJudge) Decide([]sql.Unit, []string) policy.Decision {
	return policy.Decision{Action: policy.Allow, Policy: "p", Rule: "r"}
}

func (j *easyJudge) Admit(*record.Operation, policy.Decision) (uint64, error) {
	j.seq++
	return j.seq, nil
}
func (j *easyJudge) Added(time.Duration)           {}
func (j *easyJudge) Finish(*record.Result)         {}
func (j *easyJudge) Note(string, record.Fragment)  {}
func (j *easyJudge) Revision() uint64              { return 1 }
func (j *easyJudge) Options() (bool, bool)         { return false, false }
func (j *easyJudge) Masks() *mask.Rules            { return nil }
func (j *easyJudge) Masked(string, string, uint64) {}

// steady is a machine's halves, and one round of a conversation that can be repeated for ever.
type steady struct {
	f                *frontend
	b                *backend
	out              relay.Output
	request, answers []byte
}

func newSteady(before, beforeAnswers, request, answers string) *steady {
	m := &machine{judge: &easyJudge{}, parser: sharedParser, session: "s", status: 'I', searchPath: []string{"public"}, parameters: map[string]string{}}
	s := &steady{f: &frontend{machine: m}, b: &backend{machine: m}, request: []byte(before), answers: []byte(beforeAnswers)}
	if before != "" {
		s.round()
	}
	s.request, s.answers = []byte(request), []byte(answers)
	return s
}

func (s *steady) round() {
	s.out.Reset()
	if n, err := s.f.Process(s.request, &s.out); n != len(s.request) || err != nil {
		panic(err)
	}
	s.out.Reset()
	if n, err := s.b.Process(s.answers, &s.out); n != len(s.answers) || err != nil {
		panic(err)
	}
	s.b.Settle()
}

// steadies are the ways in which clients mostly speak.
func steadies() map[string]*steady {
	query := "SELECT abalance FROM pgbench_accounts WHERE aid = 42"
	return map[string]*steady{
		"prepared": newSteady(prs("s", query)+syn, parseOK+idleNow,
			bnd("", "s")+dsc("P", "")+exe("")+syn, bindOK+rows+row+tag("SELECT 1")+idleNow),
		"pipelined": newSteady(prs("s", query)+syn, parseOK+idleNow,
			strings.Repeat(bnd("", "s")+exe(""), 100)+syn, strings.Repeat(bindOK+row+tag("SELECT 1"), 100)+idleNow),
		"unnamed": newSteady("", "", prs("", query)+bnd("", "")+dsc("P", "")+exe("")+syn, parseOK+bindOK+rows+row+tag("SELECT 1")+idleNow),
		"simple":  newSteady("", "", qry(query), rows+row+tag("SELECT 1")+idleNow),
		"rows":    newSteady("", "", qry(query), rows+strings.Repeat(row, 1000)+tag("SELECT 1000")+idleNow),
		"copy":    newSteady("", "", qry("COPY t FROM STDIN")+strings.Repeat(data, 1000)+dn, copyIn+tag("COPY 1000")+idleNow),
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for name, s := range steadies() {
		s.round()
		if n := testing.AllocsPerRun(100, s.round); n != 0 {
			t.Errorf("%s: %v allocations a round", name, n)
		}
	}
}

func benchmark(b *testing.B, name string) {
	s := steadies()[name]
	b.SetBytes(int64(len(s.request) + len(s.answers)))
	b.ReportAllocs()
	for b.Loop() {
		s.round()
	}
}

func BenchmarkPrepared(b *testing.B)  { benchmark(b, "prepared") }
func BenchmarkPipelined(b *testing.B) { benchmark(b, "pipelined") }
func BenchmarkUnnamed(b *testing.B)   { benchmark(b, "unnamed") }
func BenchmarkSimple(b *testing.B)    { benchmark(b, "simple") }
func BenchmarkRows(b *testing.B)      { benchmark(b, "rows") }
func BenchmarkCopyIn(b *testing.B)    { benchmark(b, "copy") }
