package postgres

import "testing"

func TestQueueKeepsItsOrderWhileItGrowsAndShrinks(t *testing.T) {
	var q inflight
	next, first := uint64(1), uint64(1)
	for round := range 50 {
		for range round {
			q.push().op = next
			next++
		}
		for range round - round/4 {
			if q.front() == nil || q.front().op != first {
				t.Fatalf("front %+v, want %d", q.front(), first)
			}
			q.pop()
			first++
		}
	}
	for ; q.n > 0; first++ {
		if q.front().op != first {
			t.Fatalf("front %d, want %d", q.front().op, first)
		}
		q.pop()
	}
	if q.front() != nil || first != next {
		t.Errorf("%d of %d came out", first, next)
	}
}

func TestOneIsTakenOutOfTheMiddle(t *testing.T) {
	var q inflight
	for i := range uint64(5) {
		q.push().op = i
	}
	q.remove(2)
	var got []uint64
	for ; q.n > 0; q.pop() {
		got = append(got, q.front().op)
	}
	if len(got) != 4 || got[0] != 0 || got[1] != 1 || got[2] != 3 || got[3] != 4 {
		t.Errorf("got %v", got)
	}
}
