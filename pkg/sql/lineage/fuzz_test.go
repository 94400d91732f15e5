package lineage

import (
	"testing"
)

// setReturning are functions that make rows of their argument.
var setReturning = []string{"unnest", "jsonb_each", "generate_series", "jsonb_each_text"}

// A tally counts what became of random statements.
type tally struct{ accepted, denied, refused int }

// random checks statements of one seed against two servers: a column without masks never shows what is masked, and a statement that is not
// denied leaves none of it where it was not.
func (o *oracle) random(t *testing.T, seed uint64, count *tally) {
	g := newGenerator(seed)
	for range 25 {
		text := g.statement()
		out := o.check(t, text)
		switch {
		case out.err != nil && !serverError(out.err):
			t.Errorf("%s: %v", text, out.err)
		case out.err != nil:
			count.refused++
			if testing.Verbose() {
				t.Logf("refused: %s: %v", text, out.err)
			}
		case out.statement.Denied != "":
			count.denied++
		default:
			count.accepted++
		}
		if len(out.problems) > 0 {
			t.Errorf("%s\n%s", text, out.problems[0])
		}
	}
}

func TestRandomStatementsShowAndLeaveNothingThatIsMasked(t *testing.T) {
	o := newOracle(t)
	var count tally
	for seed := range uint64(30) {
		o.random(t, seed, &count)
	}
	t.Logf("%+v", count)
	if count.accepted < 350 {
		t.Errorf("of 750 statements only %d were run: %+v", count.accepted, count)
	}
}

func FuzzStatements(f *testing.F) {
	o := newOracle(f)
	for seed := range uint64(4) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { o.random(t, seed, &tally{}) })
}
