package mask_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/mask"
)

// oidText is the type text.
const oidText = 25

// detecting are rules of one mask with detectors; without names, with all of them.
func detecting(with string, names ...string) *mask.Rules {
	if len(names) == 0 {
		names = v1alpha1.Detectors()
	}
	return mask.Compile([]mask.Source{{Policy: "p", Masks: []v1alpha1.Mask{{Name: "m", Detect: names, With: with}}, Key: key}})
}

func scan(t testing.TB, rules *mask.Rules, text string) string {
	t.Helper()
	out, null := rules.Rewriter(mask.Contents{}, mask.Builtin(oidText), -1, 0, mask.Options{}).Append(nil, []byte(text))
	if null {
		return "NULL"
	}
	return string(out)
}

// Keys are put together here, so that nobody takes this file for one that holds some.
var (
	token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
	pem   = "-----BEGIN " + "EC PRIVATE KEY-----\nMHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY/PuoAoGCCqGSM49\n-----END " + "EC PRIVATE KEY-----"
	chars = "0123456789abcdefABCDEF0123456789abcdefABCDEF0123456789abcdefABCDEF0123456789abcdefABCDEFxx=="
)

func TestDetectorsFindWhatTheyAreFor(t *testing.T) {
	tests := map[string][]string{
		"email": {"jane@example.com", "jane.o'hara+tag@mail.example.co.uk", "jürgen@müller.de", "a_b-c@x-y.info", "jane%40example.com"},
		"payment-card": {"4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "5555555555554444", "2223003122003222", "378282246310005",
			"3782 822463 10005", "6011111111111117", "30569309025904", "3530111333300000", "6200000000000005", "4222222222222"},
		"iban":              {"DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "FR1420041010050500013M02606", "de89 3704 0044 0532 0130 00", "NO9386011117947"},
		"phone":             {"+49 30 1234567", "+14155552671", "+44 (0)20 7946 0958", "(212) 555-0123", "212-555-0123", "1-212-555-0123", "030 12345678", "020 7946 0958", "06 12 34 56 78", "06.12.34.56.78", "030/1234567"},
		"us-ssn":            {"078-05-1120", "219 09 9999"},
		"de-tax-id":         {"86095742719", "47 036 892 816"},
		"fr-nir":            {"255081416802538", "2 55 08 14 168 025 38"},
		"es-dni":            {"12345678Z", "X1234567L"},
		"it-codice-fiscale": {"RSSMRA85T10A562S", "rssmra85t10a562s"},
		"nl-bsn":            {"111222333", "1112.22.333"},
		"pl-pesel":          {"44051401359"},
		"uk-nhs":            {"943 476 5919", "9434765919"},
		"ch-ahv":            {"756.9217.0769.85", "7569217076985"},
		"br-cpf":            {"111.444.777-35", "52998224725"},
		"in-aadhaar":        {"2341 2341 2346", "234123412346"},
		"jwt":               {token, "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."},
		"private-key":       {pem, strings.ReplaceAll(pem, "\n", `\n`)},
		"cloud-key": {"AKIA" + "IOSFODNN7EXAMPLE", "AIza" + chars[:35], "ghp_" + chars[:36], "github_pat_" + chars[:60], "glpat-" + chars[:20], "xoxb-" + chars[:40],
			"sk_live_" + chars[:24], "AccountKey=" + chars[:88], "SharedAccessKey=" + chars[:44], "npm_" + chars[:36], "sk-ant-" + chars[:40], "GOCSPX-" + chars[:28]},
	}
	if len(tests) != len(v1alpha1.Detectors()) {
		t.Errorf("%d of %d detectors are tested", len(tests), len(v1alpha1.Detectors()))
	}
	for name, finds := range tests {
		rules, all := detecting("redact", name), detecting("redact")
		for _, find := range finds {
			for _, around := range [][2]string{{"", ""}, {"see ", " there"}, {"(", ")"}, {`"`, `",`}, {"x: ", ". End"}, {"é ", "\nü"}, {"<", ">"}} {
				text := around[0] + find + around[1]
				want := around[0] + "********" + around[1]
				if got := scan(t, rules, text); got != want {
					t.Errorf("%s: %q became %q, want %q", name, text, got, want)
				}
				if got := scan(t, all, text); strings.Contains(got, find) {
					t.Errorf("all detectors: %q became %q", text, got)
				}
			}
			for _, within := range []string{"a" + find, find + "a9"} {
				if got := scan(t, rules, within); strings.Contains("payment-card us-ssn nl-bsn uk-nhs de-tax-id ch-ahv", name) && got != within {
					t.Errorf("%s: %q became %q, though a word goes on", name, within, got)
				}
			}
		}
	}
}

func TestDetectorsLeaveTheRestAlone(t *testing.T) {
	rules := detecting("redact")
	for _, text := range []string{
		"", " ", "@", "a@", "@b.c", "a@b", "a@b.1", "a @ b.com", "@handle", "user@localhost", "v1.2.3@sha256", "x@@y.com",
		"2024-01-01", "2024-01-01 12:34:56.789012", "2024-01-01T12:34:56+02:00", "01/02/2024", "12.05.2023 10:00", "20240101123456",
		"192.168.1.100", "10.0.0.1:5432", "2001:db8::1", "00:1A:2B:3C:4D:5E",
		"c0ffee00-1234-4abc-8def-0123456789ab", "123e4567-e89b-12d3-a456-426614174000",
		"4111111111111112", "4111 1111 1111 1112", "1234567890123456", "0000000000000000", "1111111111111111", "9999999999999995",
		"order 1234567890", "123456789", "1,234,567.89", "3.14159265358979", "1e100", "100 200 300 400", "1 2 3 4 5 6 7 8 9",
		"000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000", "123-45-678", "12-345-6789",
		"DE88370400440532013000", "XX89370400440532013000", "DE8937040044053201300", "12345678A", "X1234567A", "RSSMRA85T10A562T",
		"756.9217.0769.84", "111.444.777-36", "111.111.111-11", "1234 1234 1234", "255081416802539", "255081316802538", "86095742718",
		"ISBN 978-3-16-148410-0", "EAN 4006381333931", "RFC-2822", "ISO-8601", "#123456", "v20.11.1", "0.1+0.2", "1-800", "911",
		"eyJ", "eyJhbGciOiJIUzI1NiJ9", "eyJhbGciOiJIUzI1NiJ9.abc", "-----BEGIN CERTIFICATE-----", "-----BEGIN PUBLIC KEY-----\nMHcC\n-----END PUBLIC KEY-----",
		"AKIA", "AKIASHORT", "sk_live_", "ghp_short", "snake_case_name", "kebab-case-name", "AIzaShort",
		"Zürich, 8001", "Straße 12a", "日本語のテキスト 12345", "50% of 40", "100%40", "+1", "+123", "(555)", "(a) b", "C++ (2011) 98",
	} {
		if got := scan(t, rules, text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestSeveralFindingsInOneText(t *testing.T) {
	text := "Jane <jane@example.com>, card 4111 1111 1111 1111 (exp 12/26), IBAN DE89370400440532013000; jim@example.org, +49 30 1234567."
	want := "Jane <j***@e******.com>, card **** **** **** 1111 (exp 12/26), IBAN D******0; j***@e******.org, +** ** ***4567."
	if got := scan(t, detecting("partial"), text); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestPartialShowsNothingOfKeys(t *testing.T) {
	for _, secret := range []string{token, pem, "ghp_" + chars[:36]} {
		if got := scan(t, detecting("partial"), "key: "+secret); got != "key: ********" {
			t.Errorf("%q became %q", secret, got)
		}
	}
}

func TestPrivateKeyThatDoesNotEndReachesToTheEnd(t *testing.T) {
	if got := scan(t, detecting("redact"), "my key:\n-----BEGIN "+"PGP PRIVATE KEY BLOCK-----\n\nlQVYBGABCDEF and so on"); got != "my key:\n********" {
		t.Errorf("got %q", got)
	}
}

func TestFirstMaskWithTheDetectorHasIt(t *testing.T) {
	fixed := "[mail]"
	rules := mask.Compile([]mask.Source{
		{Policy: "a", Masks: []v1alpha1.Mask{{Name: "mails", Detect: []string{"email"}, With: "fixed", Value: &fixed}, {Name: "cards", Detect: []string{"payment-card", "email"}, With: "redact"}}},
		{Policy: "b", Masks: []v1alpha1.Mask{{Name: "keys", Detect: []string{"cloud-key"}, With: "null"}}},
	})
	tally := make([]uint64, rules.Len())
	w := rules.Rewriter(mask.Contents{}, mask.Builtin(oidText), -1, 0, mask.Options{Tally: tally})
	out, null := w.Append(nil, []byte("a@b.com 4111111111111111 c@d.com"))
	if string(out) != "[mail] ******** [mail]" || null || fmt.Sprint(tally) != "[2 1 0]" {
		t.Errorf("made %q, %v, counted %v", out, null, tally)
	}
	if _, null := w.Append(nil, []byte("npm_"+chars[:36])); !null || tally[2] != 1 {
		t.Errorf("a key is NULL: %v, counted %v", null, tally)
	}
}

func TestDetectorsLookIntoValuesOfOtherTypes(t *testing.T) {
	s := connect(t)
	for _, test := range []struct{ as, value, want string }{
		{"varchar(8)", "'a@b.com'", "********"},
		{"varchar(7)", "'a@b.com'", "*******"},
		{"char(12)", "'a@b.com x'", "******** x"},
		{"text[]", "array['x', 'Jane <a@b.com>', null]", `{x,"Jane <********>",NULL}`},
		{"address", "row('a@b.com', 7, null, array['4111111111111111'])", `(********,7,,{********})`},
		{"mail", "'a@b.com'", "********"},
		{"json", `'{"a": "a\u0040b.com", "b@c.com": 1.50, "card": 4111111111111111, "ok": [true, null]}'`, `{"a": "********", "********": 1.50, "card": 0, "ok": [true, null]}`},
		{"jsonb", `'{"a": "a@b.com", "b": 4111111111111111}'`, `{"a": "********", "b": 0}`},
		{"xml", `'<a b="a@b.com">x</a>'`, `<a b="********">x</a>`},
		{"citext", "'a@b.com'", "********"},
		{"hstore", `'"m"=>"a@b.com"'`, "NULL"},
		{"tsvector", "to_tsvector('a@b.com')", "NULL"},
		{"textrange", "'[a@b.com,b]'", "NULL"},
		{"hstore", `'"m"=>"a b"'`, `"m"=>"a b"`},
		{"int8", "4111111111111111", "4111111111111111"},
	} {
		for format := range int16(2) {
			t.Run(fmt.Sprintf("%s %s in format %d", test.as, test.value, format), func(t *testing.T) {
				s.t = t
				value, oid, mod := s.value("select ("+test.value+")::"+test.as, format)
				out, null := value, false
				if w := detecting("redact").Rewriter(mask.Contents{}, s.typeOf(oid), mod, format, mask.Options{}); w != nil {
					out, null = w.Append(nil, value)
				}
				got := "NULL"
				if !null {
					var err error
					if got, err = s.text(out, oid, format, test.as); err != nil {
						t.Fatalf("the server does not take %q: %v", out, err)
					}
				}
				if strings.TrimRight(got, " ") != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
			})
		}
	}
}

func TestTimeOfScanningIsLinear(t *testing.T) {
	rules := detecting("redact")
	w := rules.Rewriter(mask.Contents{}, mask.Builtin(oidText), -1, 0, mask.Options{})
	random := rand.New(rand.NewPCG(1, 2))
	const size = mask.MaxValueBytes / 4
	noise := make([]byte, size)
	const signs = "@.-_+()% 0123456789AJeyDE"
	for i := range noise {
		noise[i] = signs[random.IntN(len(signs))]
	}
	out := make([]byte, 0, 2*size)
	for name, unit := range map[string]string{
		"digits": "1", "digits in groups": "1 ", "ats": "@", "names before ats": "a@", "labels": "a@b.c.", "dashes": "-", "underscores": "_", "pluses": "+1",
		"parentheses": "(1", "tokens that are none": "eyJhbGciOiJI.", "tokens that are half": "eyJhbGciOiJI.eyJ", "account numbers that are none": "DE89 ",
		"blocks that are none": "-----BEGIN X", "blocks that do not end": "-----BEGIN PUBLIC KEY-----", "key prefixes": "AccountKey=", "noise": string(noise),
	} {
		text := []byte(strings.Repeat(unit, size/len(unit)))
		start := time.Now()
		out, _ = w.Append(out[:0], text)
		// Milliseconds are expected; quadratic time would take minutes. What is between is for a busy machine.
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: %d bytes took %s", name, len(text), took)
		}
	}
}
