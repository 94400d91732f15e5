package proxy

import (
	"strings"
	"testing"
)

func TestQuotaOfOneWorkloadLeavesOthersTheirRoom(t *testing.T) {
	const greedy, second, modest = 1, 2, 3
	for _, test := range []struct {
		name   string
		limits Limits
		// How many sessions each gets that asks for more, one after the other.
		greedy, second, modest int
	}{
		{"nothing is said", Limits{}, DefaultSessionsPerWorkload, DefaultSessionsPerWorkload, DefaultSessionsPerWorkload},
		{"a quota of its own", Limits{PerWorkload: 3}, 3, 3, 3},
		// Room for 700: three quarters for one, seven eighths for those with many, the rest for those with few.
		{"few files", Limits{OpenFiles: 1606}, 525, 88, 32},
		{"few files and a quota", Limits{PerWorkload: 100, OpenFiles: 1606}, 100, 100, 100},
		{"hardly any files", Limits{OpenFiles: 16}, 3, 2, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := newQuota(test.limits)
			var left []func()
			fill := func(workload uint64) int {
				for n := 0; ; n++ {
					full, _, leave := q.enter(workload, 2)
					if full != "" {
						leave()
						return n
					}
					left = append(left, leave)
				}
			}
			for _, one := range []struct {
				workload uint64
				want     int
			}{{greedy, test.greedy}, {second, test.second}, {modest, test.modest}} {
				if got := fill(one.workload); got != one.want {
					t.Errorf("workload %d has %d sessions: want %d", one.workload, got, one.want)
				}
			}
			for _, leave := range left {
				leave()
			}
			if q.used != 0 || len(q.by) != 0 {
				t.Errorf("%d are counted of %v when all have left", q.used, q.by)
			}
			if got := fill(greedy); got != test.greedy {
				t.Errorf("afterwards: %d sessions: want %d", got, test.greedy)
			}
		})
	}
}

func TestConnectionsFarBeyondTheQuotaAreHopeless(t *testing.T) {
	q := newQuota(Limits{PerWorkload: 2})
	for n := range 2 + startups + 1 {
		full, hopeless, _ := q.enter(1, 1)
		if told := strings.Contains(full, "2 sessions"); told != (n >= 2) {
			t.Errorf("connection %d: %q", n, full)
		}
		if hopeless != (n == 2+startups) {
			t.Errorf("connection %d: hopeless is %v", n, hopeless)
		}
	}
}
