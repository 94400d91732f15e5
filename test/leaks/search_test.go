package leaks

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A form is how a server or a program would write a canary.
type form struct {
	what  string
	bytes []byte // in lower case
}

// forms are all forms of all canaries.
var forms = func() (all []form) {
	add := func(canary, what, text string) {
		all = append(all, form{fmt.Sprintf("%s %s", canary, what), bytes.ToLower([]byte(text))})
	}
	for _, c := range canaries {
		add(c, "as it is", c)
		runes := []rune(c)
		slices.Reverse(runes)
		add(c, "backwards", string(runes))
		add(c, "in hex", hex.EncodeToString([]byte(c)))
		add(c, "in UTF-16", strings.Join(strings.Split(c, ""), "\x00"))
		var escaped, octal, entities strings.Builder
		for _, r := range c {
			fmt.Fprintf(&escaped, `\u%04x`, r)
			fmt.Fprintf(&octal, `\%03o`, r)
			fmt.Fprintf(&entities, `&#%d;`, r)
		}
		add(c, "in JSON's escapes", escaped.String())
		add(c, "in octal", octal.String())
		add(c, "in entities", entities.String())
		// Base64 has three forms, by where the canary begins; the characters at the ends depend on what is around.
		for shift := range 3 {
			encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + c))
			start, end := (shift*8+5)/6, len(strings.TrimRight(encoded, "="))-1
			if end-start >= 6 {
				add(c, "in base64", encoded[start:end])
			}
		}
	}
	for _, c := range binaryCanaries {
		all = append(all, form{fmt.Sprintf("%x in binary", c), []byte(c)})
	}
	for id := 1; id <= 3; id++ {
		for _, whole := range []string{fmt.Sprintf("quokka%d@zebrafish.example", id), fmt.Sprintf("078-05-112%d", id)} {
			add(whole, "as MD5", fmt.Sprintf("%x", md5.Sum([]byte(whole))))
			add(whole, "as SHA-256", fmt.Sprintf("%x", sha256.Sum256([]byte(whole))))
		}
	}
	return all
}()

// search fails the test for every form that is in what was received.
func search(t testing.TB, received []byte) {
	t.Helper()
	lower := bytes.ToLower(received)
	for _, f := range forms {
		in := lower
		if strings.HasSuffix(f.what, "in binary") {
			in = received
		}
		if at := bytes.Index(in, f.bytes); at >= 0 {
			t.Errorf("leaked %s: …%q…", f.what, received[max(0, at-80):min(len(received), at+len(f.bytes)+40)])
		}
	}
}

// session is how an error names the session, which differs with each.
var session = regexp.MustCompile(`[Ss]ession [0-9a-zA-Z_-]{8,}`)

// same fails the test where two answers differ.
func same(t testing.TB, first, second []byte) {
	t.Helper()
	first, second = session.ReplaceAll(first, []byte("session")), session.ReplaceAll(second, []byte("session"))
	if bytes.Equal(first, second) {
		return
	}
	at := 0
	for at < min(len(first), len(second)) && first[at] == second[at] {
		at++
	}
	around := func(b []byte) []byte { return b[max(0, min(at-80, len(b))):min(len(b), at+60)] }
	t.Errorf("the answer depends on masked values, from byte %d on:\n%q\n%q", at, around(first), around(second))
}

func TestSearchFindsEachForm(t *testing.T) {
	for _, answer := range []string{"a quokka1@x", "QUOKKA", "akkouq", "\\x71756f6b6b61", "cXVva2thMUB6ZWJyYWZpc2g=", `\u0071\u0075\u006f\u006b\u006b\u0061`, "\x0e\x9b\x08\xa5\x68\xf1",
		fmt.Sprintf("%x", md5.Sum([]byte("quokka2@zebrafish.example")))} {
		found := &counting{TB: t}
		search(found, []byte("before "+answer+" after"))
		if found.errors == 0 {
			t.Errorf("%q is not found", answer)
		}
	}
	found := &counting{TB: t}
	search(found, []byte("nothing of it: ********, j***@e******.com, 0"))
	if found.errors != 0 {
		t.Error("something is found where there is nothing")
	}
}

// counting counts errors instead of failing.
type counting struct {
	testing.TB
	errors int
}

// Errorf implements testing.TB.
func (c *counting) Errorf(string, ...any) { c.errors++ }
