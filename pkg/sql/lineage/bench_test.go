package lineage

import "testing"

func BenchmarkAnalyze(b *testing.B) {
	s := newOracle(b).schema
	for _, bench := range []struct{ name, text string }{
		{"key", `SELECT id, name, email FROM customers WHERE id = $1`},
		{"join", `SELECT c.id, count(o.id) AS n, max(o.note) FROM customers c LEFT JOIN orders o ON o.customer_id = c.id WHERE c.name LIKE $1 GROUP BY c.id, c.name ORDER BY n DESC LIMIT 10`},
		{"view", `SELECT * FROM v_deep WHERE id = $1`},
		{"function", `SELECT mail_of($1), name_of($2)`},
		{"insert", `INSERT INTO orders (id, customer_id, total) VALUES ($1, $2, $3) RETURNING id`},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Analyze(bench.text, session); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
