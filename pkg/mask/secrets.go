package mask

import "bytes"

// ibanLengths are the lengths of account numbers by country (the registry of ISO 13616).
var ibanLengths = map[string]int{
	"AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29, "BY": 28, "CH": 21, "CR": 22,
	"CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22,
	"GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30,
	"KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20,
	"MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22,
	"RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26,
	"UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}

// ibanAt recognises an account's number, with a space after every fourth character or without.
func ibanAt(text []byte, start int) (end int, ok bool) {
	country := [2]byte{text[start] &^ 0x20, text[start+1] &^ 0x20}
	length := ibanLengths[string(country[:])]
	if length == 0 {
		return 0, false
	}
	// The first four characters count last.
	rest, head := 0, 0
	n := 0
	for end = start; end < len(text) && n < length; end++ {
		c := text[end]
		if c == ' ' && n > 0 && n%4 == 0 && end+1 < len(text) && isAlnum(text[end+1]) {
			continue
		}
		if !isAlnum(c) || (n == 2 || n == 3) && !isDigit(c) {
			return 0, false
		}
		if n++; n <= 4 {
			head = modulo97(head, c)
			continue
		}
		rest = modulo97(rest, c)
	}
	if n < length || !endsWord(text, end) {
		return 0, false
	}
	// The head has six digits: two letters of two digits each, and two digits.
	return end, (rest*(1000000%97)+head)%97 == 1
}

// modulo97 appends a character to a number of which only the rest by 97 is kept; a letter is two digits, A is 10.
func modulo97(rest int, c byte) int {
	if isDigit(c) {
		return (rest*10 + int(c-'0')) % 97
	}
	return (rest*100 + int(c&^0x20-'A') + 10) % 97
}

// secretAt recognises keys and tokens at a byte that is in them.
func secretAt(text []byte, i, floor int, enabled detectors) (finding, bool) {
	switch c := text[i]; {
	case c == 'J':
		if enabled&jwt != 0 && i-2 >= floor && text[i-1] == 'y' && text[i-2] == 'e' && boundary(text, i-2) {
			if end, ok := jwtAt(text, i-2); ok {
				return finding{i - 2, end, jwt}, true
			}
		}
	case c == '-' && enabled&privateKey != 0 && hasPrefix(text, i, pemBegin):
		if end, ok := privateKeyAt(text, i); ok {
			return finding{i, end, privateKey}, true
		}
	}
	if enabled&cloudKey != 0 {
		for k := range keysWith[text[i]] {
			form := &keysWith[text[i]][k]
			start := i - form.trigger
			if start >= floor && hasPrefix(text, start, form.prefix) && boundary(text, start) {
				if end := form.end(text, start); end > 0 {
					return finding{start, end, cloudKey}, true
				}
			}
		}
	}
	return finding{}, false
}

func hasPrefix(text []byte, start int, prefix string) bool {
	return len(text)-start >= len(prefix) && string(text[start:start+len(prefix)]) == prefix
}

// A keyForm is how a provider's keys begin, and what follows: at least so many characters of its alphabet.
type keyForm struct {
	prefix  string
	trigger int // the place in the prefix of the byte that is found first
	min     int
}

// keyForms are those that announce themselves.
var keyForms = []keyForm{
	{prefix: "AKIA", min: 16}, {prefix: "ASIA", min: 16}, {prefix: "ABIA", min: 16}, {prefix: "ACCA", min: 16}, // AWS
	{prefix: "AIza", min: 35}, {prefix: "GOCSPX-", trigger: 6, min: 24}, // Google
	{prefix: "AccountKey=", min: 40}, {prefix: "SharedAccessKey=", trigger: 6, min: 40}, // Azure
	{prefix: "ghp_", trigger: 3, min: 36}, {prefix: "gho_", trigger: 3, min: 36}, {prefix: "ghu_", trigger: 3, min: 36}, {prefix: "ghs_", trigger: 3, min: 36},
	{prefix: "ghr_", trigger: 3, min: 36}, {prefix: "github_pat_", trigger: 6, min: 22}, {prefix: "glpat-", trigger: 5, min: 20}, // GitHub, GitLab
	{prefix: "xoxb-", trigger: 4, min: 20}, {prefix: "xoxp-", trigger: 4, min: 20}, {prefix: "xoxa-", trigger: 4, min: 20}, {prefix: "xoxr-", trigger: 4, min: 20},
	{prefix: "xoxs-", trigger: 4, min: 20}, {prefix: "xoxe-", trigger: 4, min: 20}, {prefix: "xapp-", trigger: 4, min: 20}, // Slack
	{prefix: "sk_live_", trigger: 2, min: 16}, {prefix: "sk_test_", trigger: 2, min: 16}, {prefix: "rk_live_", trigger: 2, min: 16}, {prefix: "rk_test_", trigger: 2, min: 16},
	{prefix: "whsec_", trigger: 5, min: 24}, // Stripe
	{prefix: "npm_", trigger: 3, min: 36}, {prefix: "pypi-", trigger: 4, min: 32}, {prefix: "hf_", trigger: 2, min: 30}, {prefix: "dop_v1_", trigger: 3, min: 40},
	{prefix: "shpat_", trigger: 5, min: 32}, {prefix: "sk-ant-", trigger: 2, min: 32}, {prefix: "sk-proj-", trigger: 2, min: 32},
}

// keysWith are the forms by their trigger.
var keysWith = func() (with [256][]keyForm) {
	for _, f := range keyForms {
		c := f.prefix[f.trigger]
		with[c] = append(with[c], f)
	}
	return with
}()

// end is where a key that begins at start ends, 0 when it is too short for one.
func (f *keyForm) end(text []byte, start int) int {
	end := start + len(f.prefix)
	for end < len(text) && (isAlnum(text[end]) || text[end] == '_' || text[end] == '-' || text[end] == '+' || text[end] == '/' || text[end] == '=') {
		end++
	}
	if end-start-len(f.prefix) < f.min {
		return 0
	}
	return end
}

// jwtAt recognises a token of JSON (RFC 7519): two parts in base64url that begin with {", and the signature, which may be empty.
func jwtAt(text []byte, start int) (end int, ok bool) {
	header := base64End(text, start)
	if header-start < 10 || !hasPrefix(text, header, ".eyJ") {
		return 0, false
	}
	payload := base64End(text, header+1)
	if payload-header < 5 || payload >= len(text) || text[payload] != '.' {
		return 0, false
	}
	return base64End(text, payload+1), true
}

func base64End(text []byte, i int) int {
	for i < len(text) && (isAlnum(text[i]) || text[i] == '-' || text[i] == '_') {
		i++
	}
	return i
}

// Parts of a PEM block (RFC 7468); PGP's say BLOCK at the end.
const (
	pemBegin = "-----BEGIN "
	pemEnd   = "-----END "
)

// privateKeyAt recognises a private key. One that does not end reaches to the end of the text.
func privateKeyAt(text []byte, start int) (end int, ok bool) {
	label := text[start+len(pemBegin):]
	stop := bytes.Index(label[:min(len(label), 64)], []byte("-----"))
	if stop < 0 || !bytes.Contains(label[:stop], []byte("PRIVATE KEY")) {
		return 0, false
	}
	body := start + len(pemBegin) + stop + 5
	last := bytes.Index(text[body:], []byte(pemEnd))
	if last < 0 {
		return len(text), true
	}
	end = body + last + len(pemEnd)
	if stop := bytes.Index(text[end:min(len(text), end+64)], []byte("-----")); stop >= 0 {
		return end + stop + 5, true
	}
	return len(text), true
}
