package mask_test

import (
	"strings"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/mask"
)

// Text to scan: prose, rows of a log, and what is full of triggers.
var benchTexts = map[string]string{
	"prose":  strings.Repeat("The quick brown fox jumps over the lazy dog, and nobody in the whole village took any notice of it that day. ", 600),
	"log":    strings.Repeat(`2024-03-01 12:34:56.789 INFO [worker-7] GET /api/v1/orders/8812?page=2 status=200 bytes=5123 duration_ms=12.7 id=c0ffee00-1234-4abc-8def-0123456789ab `, 400),
	"base64": strings.Repeat("QUtJQUlPU0ZPRE5ON0VYQU1QTEVnaHBfMDEyMzQ1Njc4OWFiY2RlZkFCQ0RFRg", 1000),
	"finds":  strings.Repeat("Jane <jane@example.com>, card 4111 1111 1111 1111, IBAN DE89370400440532013000; ", 800),
}

// BenchmarkDetect scans texts of 64 KB for everything.
func BenchmarkDetect(b *testing.B) {
	for name, text := range benchTexts {
		b.Run(name, func(b *testing.B) {
			w := detecting("partial").Rewriter(mask.Contents{}, mask.Builtin(oidText), -1, 0, mask.Options{})
			value, out := []byte(text), make([]byte, 0, 2*len(text))
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				out, _ = w.Append(out[:0], value)
			}
		})
	}
}

// BenchmarkDetectShort scans values as columns have them.
func BenchmarkDetectShort(b *testing.B) {
	w := detecting("partial").Rewriter(mask.Contents{}, mask.Builtin(oidText), -1, 0, mask.Options{})
	value := []byte("shipped with the second parcel")
	out := make([]byte, 0, 100)
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		out, _ = w.Append(out[:0], value)
	}
}

// BenchmarkMask masks one e-mail address.
func BenchmarkMask(b *testing.B) {
	for _, method := range []string{"redact", "partial", "hash", "null"} {
		b.Run(method, func(b *testing.B) {
			w := with(method).Rewriter(secret, mask.Builtin(oidText), -1, 0, mask.Options{})
			value := []byte("jane.canary@example.com")
			out := make([]byte, 0, 100)
			b.ReportAllocs()
			for b.Loop() {
				out, _ = w.Append(out[:0], value)
			}
		})
	}
}
