package record

import (
	"testing"
	"time"
)

func BenchmarkOperation(b *testing.B) {
	session := begin(b, openTestStore(b, b.TempDir()))
	op := query("SELECT id, name, price FROM public.products WHERE category = $1 ORDER BY price LIMIT $2")
	op.Parameters = Fragment(`"parameters":{"count":2}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := session.Operation(op); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOperationWithResult(b *testing.B) {
	session := begin(b, openTestStore(b, b.TempDir()))
	op := query("SELECT id, name, price FROM public.products WHERE category = $1 ORDER BY price LIMIT $2")
	op.Parameters = Fragment(`"parameters":{"count":2}`)
	result := &Result{Rows: 10, Bytes: 1234, Duration: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		seq, err := session.Operation(op)
		if err != nil {
			b.Fatal(err)
		}
		result.Operation = seq
		session.Result(result)
	}
}

func BenchmarkBeginAndClose(b *testing.B) {
	store := openTestStore(b, b.TempDir())
	b.ReportAllocs()
	for b.Loop() {
		session, err := store.Begin(testMeta)
		if err != nil {
			b.Fatal(err)
		}
		if err := session.Close("client closed"); err != nil {
			b.Fatal(err)
		}
	}
}
