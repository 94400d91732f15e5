package rewrite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
)

// A stars masks everything with so many stars, or with NULL when it has none.
type stars int

// Append implements Value.
func (s stars) Append(dst, _ []byte) ([]byte, bool) {
	return append(dst, bytes.Repeat([]byte("*"), int(s))...), s == 0
}

// Oversize implements Value.
func (stars) Oversize(dst []byte) ([]byte, bool) { return append(dst, "too long"...), false }

// A same masks nothing, by the way that masks take.
type same struct{}

// Append implements Value.
func (same) Append(dst, value []byte) ([]byte, bool) { return append(dst, value...), false }

// Oversize implements Value.
func (same) Oversize(dst []byte) ([]byte, bool) { return dst, true }

// dataRow is a message of values, of which nil is NULL.
func dataRow(values ...[]byte) []byte {
	m := binary.BigEndian.AppendUint16([]byte{'D', 0, 0, 0, 0}, uint16(len(values)))
	for _, v := range values {
		if v == nil {
			m = binary.BigEndian.AppendUint32(m, null)
			continue
		}
		m = append(binary.BigEndian.AppendUint32(m, uint32(len(v))), v...)
	}
	binary.BigEndian.PutUint32(m[1:], uint32(len(m)-1))
	return m
}

// fed is what comes of a message in pieces that end at the given places.
func fed(columns []Value, message []byte, ends ...int) ([]byte, error) {
	r := NewRow(columns)
	r.Begin(len(message))
	var out []byte
	at, rest, begun := 0, 0, false
	for _, end := range append(ends, len(message)) {
		for at < end {
			if begun {
				n := min(end-at, rest)
				out, at, rest = append(out, message[at:at+n]...), at+n, rest-n
				continue
			}
			n, made, left, err := r.Feed(message[at:end])
			if err != nil {
				return nil, err
			}
			if at += n; made != nil {
				out, rest, begun = append(out, made...), left, true
			} else if n == 0 {
				return nil, errors.New("Feed used nothing and gave nothing")
			}
		}
	}
	if !begun || rest != 0 {
		return nil, errors.New("the message did not end")
	}
	return out, nil
}

func TestARowIsMaskedWhereverItIsCut(t *testing.T) {
	secret, other := []byte("secret"), []byte("other")
	for _, c := range []struct {
		name    string
		columns []Value
		in      [][]byte
		want    [][]byte
	}{
		{"the first of two", []Value{stars(3), nil}, [][]byte{secret, other}, [][]byte{[]byte("***"), other}},
		{"the last of two", []Value{nil, stars(30)}, [][]byte{other, secret}, [][]byte{other, bytes.Repeat([]byte("*"), 30)}},
		{"to NULL", []Value{nil, stars(0), nil}, [][]byte{other, secret, other}, [][]byte{other, nil, other}},
		{"NULL stays", []Value{stars(3), stars(3)}, [][]byte{nil, secret}, [][]byte{nil, []byte("***")}},
		{"the empty value", []Value{stars(3), nil}, [][]byte{{}, {}}, [][]byte{[]byte("***"), {}}},
		{"all", []Value{stars(1), stars(2), stars(3)}, [][]byte{secret, secret, secret}, [][]byte{[]byte("*"), []byte("**"), []byte("***")}},
		{"a value that is too long", []Value{nil, stars(1), nil}, [][]byte{other, make([]byte, MaxValue+1), other}, [][]byte{other, []byte("too long"), other}},
		{"none of no columns", nil, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			message, want := dataRow(c.in...), dataRow(c.want...)
			got, err := NewRow(c.columns).Append([]byte("before"), message)
			if err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Fatalf("got %q, %v; want %q", got, err, want)
			}
			step := 1 + len(message)/500
			for cut := 0; cut < len(message); cut += step {
				if got, err := fed(c.columns, message, cut); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("cut at %d: %.100q, %v; want %.100q", cut, got, err, want)
				}
			}
			if len(message) < 1000 {
				var every []int
				for i := range message {
					every = append(every, i)
				}
				if got, err := fed(c.columns, message, every...); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("cut everywhere: %q, %v; want %q", got, err, want)
				}
			}
		})
	}
}

func TestAMalformedRowIsRefused(t *testing.T) {
	whole := dataRow([]byte("one"), []byte("two"))
	short := func(n int) []byte {
		m := bytes.Clone(whole[:n])
		binary.BigEndian.PutUint32(m[1:], uint32(len(m)-1))
		return m
	}
	long := bytes.Clone(whole)
	binary.BigEndian.PutUint32(long[rowHeader:], 1<<20)
	negative := bytes.Clone(whole)
	binary.BigEndian.PutUint32(negative[rowHeader:], 0xfffffffe)
	for name, message := range map[string][]byte{
		"another number of columns":            dataRow([]byte("one")),
		"no number of columns":                 short(5),
		"a length that is cut":                 short(9),
		"a value that is cut":                  short(12),
		"a value longer than the message":      long,
		"a negative length that is not NULL's": negative,
	} {
		if got, err := NewRow([]Value{stars(1), stars(1)}).Append(nil, message); !errors.Is(err, ErrFormat) || len(got) > 0 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if got, err := fed([]Value{stars(1), stars(1)}, message, 6, 10); err == nil {
			t.Errorf("%s, in pieces: %q", name, got)
		}
	}
}

func TestARowThatCanNotBeKeptInMemoryIsRefused(t *testing.T) {
	message := dataRow(make([]byte, maxCollected), []byte("secret"))
	if _, err := fed([]Value{nil, stars(1)}, message, 1<<20, 2<<20, 10<<20); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("%v", err)
	}
	message = dataRow([]byte("secret"), make([]byte, maxCollected))
	if out, err := fed([]Value{stars(1), nil}, message, 1<<20); err != nil || bytes.Contains(out, []byte("secret")) {
		t.Fatalf("what follows the last masked value is not kept: %v", err)
	}
}

func FuzzRow(f *testing.F) {
	f.Add(dataRow([]byte("one"), nil, []byte("three")), uint16(0b101), uint64(1))
	f.Add(dataRow(), uint16(0), uint64(2))
	f.Fuzz(func(t *testing.T, message []byte, masked uint16, seed uint64) {
		if len(message) < 7 {
			return
		}
		message[0] = 'D'
		binary.BigEndian.PutUint32(message[1:], uint32(len(message)-1))
		columns := make([]Value, min(16, binary.BigEndian.Uint16(message[5:])))
		for i := range columns {
			if masked>>i&1 == 1 {
				columns[i] = stars(i % 4)
			}
		}
		whole, err := NewRow(columns).Append(nil, message)
		random := rand.New(rand.NewPCG(seed, 0))
		var ends []int
		for at := random.IntN(9); at < len(message); at += 1 + random.IntN(9) {
			ends = append(ends, at)
		}
		pieces, piecewise := fed(columns, message, ends...)
		if (err == nil) != (piecewise == nil) || err == nil && !bytes.Equal(whole, pieces) {
			t.Fatalf("whole %q, %v; in pieces %q, %v", whole, err, pieces, piecewise)
		}
		if err == nil && int(binary.BigEndian.Uint32(whole[1:])) != len(whole)-1 {
			t.Fatalf("the length of %q", whole)
		}
	})
}

func BenchmarkTwoOfTenColumns(b *testing.B) {
	values, columns := [][]byte{}, []Value{}
	for i := range 10 {
		values, columns = append(values, []byte("twenty characters ..")), append(columns, nil)
		if i%5 == 2 {
			columns[i] = stars(8)
		}
	}
	message := dataRow(values...)
	r, dst := NewRow(columns), []byte(nil)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = r.Append(dst[:0], message)
	}
}
