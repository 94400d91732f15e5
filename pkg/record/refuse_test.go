package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// linesOf are the ledger's lines of a type.
func linesOf(t *testing.T, dir, typ string) (lines [][]byte) {
	t.Helper()
	for line := range bytes.Lines(content(t, dir, ledgerName)) {
		if h, err := parseHead(line); err == nil && h.typ == typ {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestRefusedConnectionLeavesALine(t *testing.T) {
	dir := t.TempDir()
	store := openTestStore(t, dir)
	store.Refuse("no_policy", testMeta)
	lines := linesOf(t, dir, typeRefused)
	if len(lines) != 1 {
		t.Fatalf("there are %d lines", len(lines))
	}
	var line refusedLine
	must(t, json.Unmarshal(lines[0], &line))
	if line.Reason != "no_policy" || line.Meta != testMeta {
		t.Errorf("the line is %s", lines[0])
	}
	wantSound(t, dir)
}

func TestHostileWorkloadCanNotFillTheLedger(t *testing.T) {
	dir := t.TempDir()
	store := openTestStore(t, dir)
	const connections = 100_000
	for i := range connections {
		store.Refuse(fmt.Sprintf("reason-%d", i%100), testMeta)
	}
	quiet := testMeta
	quiet.Workload.Cgroup = "/sallyport/quiet"
	store.Refuse("no_policy", quiet)
	must(t, store.Close())
	refused := linesOf(t, dir, typeRefused)
	if len(refused) < refusalBurst+1 || len(refused) > refusalBurst+10 {
		t.Errorf("there are %d lines", len(refused))
	}
	if !bytes.Contains(refused[len(refused)-1], []byte("/sallyport/quiet")) {
		t.Error("another workload's refused connection has no line")
	}
	var told uint64
	for _, l := range linesOf(t, dir, typeSuppressed) {
		var line suppressedLine
		must(t, json.Unmarshal(l, &line))
		told += line.Count
		if line.Workload.Cgroup != "/sallyport/demo" || len(line.Reasons) > maxReasons+1 {
			t.Errorf("the line is %s", l)
		}
	}
	if told+uint64(len(refused)-1) != connections {
		t.Errorf("%d connections are told of, %d were refused", told+uint64(len(refused)-1), connections)
	}
	wantSound(t, dir)
}

func TestRefusalsAreToldEachMinuteAndQuietWorkloadsForgotten(t *testing.T) {
	var r refusals
	now := testTime
	for range refusalBurst {
		if !r.admit(now, "identity", testMeta.Workload) {
			t.Fatal("a line too few")
		}
	}
	if r.admit(now, "identity", testMeta.Workload) {
		t.Fatal("a line too many")
	}
	if lines := r.due(now, false); len(lines) != 0 {
		t.Errorf("at once it tells %+v", lines)
	}
	now = now.Add(suppressedInterval)
	lines := r.due(now, false)
	if len(lines) != 1 || lines[0].Count != 1 || lines[0].Reasons["identity"] != 1 {
		t.Fatalf("after a minute it tells %+v", lines)
	}
	r.restore(lines[0]) // it could not be written
	now = now.Add(suppressedInterval)
	if lines := r.due(now, false); len(lines) != 1 || lines[0].Count != 1 {
		t.Errorf("after two minutes it tells %+v", lines)
	}
	if !r.admit(now, "identity", testMeta.Workload) {
		t.Error("after two minutes there is no line for it")
	}
	now = now.Add(time.Hour)
	r.due(now, false)
	if len(r.byCgroup) != 0 {
		t.Errorf("it remembers %d workloads", len(r.byCgroup))
	}
	for i := range 2 * maxRefusers {
		r.admit(now, "identity", Workload{Cgroup: fmt.Sprint(i)})
	}
	if len(r.byCgroup) > maxRefusers+1 {
		t.Errorf("it remembers %d workloads", len(r.byCgroup))
	}
}
