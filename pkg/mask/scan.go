package mask

import "github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"

// detectors are a set of them.
type detectors uint32

const (
	email detectors = 1 << iota
	paymentCard
	iban
	phone
	usSSN
	deTaxID
	frNIR
	esDNI
	itCodiceFiscale
	nlBSN
	plPESEL
	ukNHS
	chAHV
	brCPF
	inAadhaar
	jwt
	privateKey
	cloudKey
)

// numbers are those that begin with a digit.
const numbers = paymentCard | phone | usSSN | deTaxID | frNIR | esDNI | nlBSN | plPESEL | ukNHS | chAHV | brCPF | inAadhaar

// secrets are those of which no part may be shown.
const secrets = jwt | privateKey | cloudKey

// detectorsNamed is the detector of a name, as v1alpha1.Detectors lists them; 0 for another name.
func detectorsNamed(name string) detectors {
	for i, known := range v1alpha1.Detectors() {
		if known == name {
			return 1 << i
		}
	}
	return 0
}

// A finding is where a detector found something.
type finding struct {
	start, end int
	detector   detectors
}

// triggers are the bytes at which something that is looked for may be recognised: not always its first.
var triggers = func() (t [256]bool) {
	for _, c := range []byte("@%+(-_AJ0123456789") {
		t[c] = true
	}
	return t
}()

// find is the first finding in text at or after from. It looks back no further than floor, and at each byte a bounded number of
// times: its time is linear in the text's length, whatever the text.
func find(text []byte, from, floor int, enabled detectors) (finding, bool) {
	for i := from; i < len(text); i++ {
		c := text[i]
		if !triggers[c] {
			continue
		}
		switch {
		case c >= '0' && c <= '9':
			f, next := atDigit(text, i, floor, enabled)
			if f.detector != 0 {
				return f, true
			}
			i = next - 1
			continue
		case c == '@', c == '%':
			if enabled&email == 0 {
				continue
			}
			if start, end, ok := emailAt(text, i, floor); ok {
				return finding{start, end, email}, true
			}
		case c == '+', c == '(':
			if enabled&phone == 0 {
				continue
			}
			if end, ok := phoneAt(text, i); ok && boundary(text, i) {
				return finding{i, end, phone}, true
			}
		default:
			if f, ok := secretAt(text, i, floor, enabled); ok {
				return f, true
			}
		}
	}
	return finding{}, false
}

// atDigit looks at the first digit of a run; next is where to go on after nothing was found.
func atDigit(text []byte, i, floor int, enabled detectors) (f finding, next int) {
	end := i
	for end < len(text) && isDigit(text[end]) {
		end++
	}
	if i > floor && isAlnum(text[i-1]) {
		if isLetter(text[i-1]) {
			if f, ok := afterLetters(text, i, floor, enabled); ok {
				return f, end
			}
		}
		return finding{}, end
	}
	if enabled&numbers != 0 && boundary(text, i) && end-i <= maxNumberDigits && !endsUUID(text, i, end) {
		var n number
		n.read(text, i)
		if stop, d := n.match(enabled); d != 0 {
			return finding{i, stop, d}, stop
		}
	}
	return finding{}, end
}

// endsUUID is true for the last twelve digits of a UUID, of which one in ten would be somebody's number.
func endsUUID(text []byte, i, end int) bool {
	return end-i == 12 && i >= 6 && text[i-1] == '-' && text[i-6] == '-' &&
		isAlnum(text[i-2]) && isAlnum(text[i-3]) && isAlnum(text[i-4]) && isAlnum(text[i-5])
}

// afterLetters looks for what begins with letters and goes on with this digit.
func afterLetters(text []byte, i, floor int, enabled detectors) (finding, bool) {
	start := i
	for start > floor && i-start < 7 && isLetter(text[start-1]) {
		start--
	}
	if start > 0 && start == floor && isAlnum(text[start-1]) || start > floor && isAlnum(text[start-1]) {
		return finding{}, false
	}
	switch letters := i - start; {
	case letters == 1 && enabled&esDNI != 0:
		if end, ok := nieAt(text, start); ok {
			return finding{start, end, esDNI}, true
		}
	case letters == 2 && enabled&iban != 0:
		if end, ok := ibanAt(text, start); ok {
			return finding{start, end, iban}, true
		}
	case letters == 6 && enabled&itCodiceFiscale != 0:
		if end, ok := codiceFiscaleAt(text, start); ok {
			return finding{start, end, itCodiceFiscale}, true
		}
	}
	return finding{}, false
}

// boundary is true where no word goes on.
func boundary(text []byte, i int) bool { return i == 0 || !isAlnum(text[i-1]) && text[i-1] != '_' }

// endsWord is true where no word goes on after end.
func endsWord(text []byte, end int) bool {
	return end >= len(text) || !isAlnum(text[end]) && text[end] != '_'
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isAlnum(c byte) bool  { return isDigit(c) || isLetter(c) }

// maxLocal and maxDomain bound the parts of an address (RFC 5321 section 4.5.3.1).
const (
	maxLocal  = 64
	maxDomain = 255
)

// emailAt recognises an address at its @, or at %40 as URLs have it.
func emailAt(text []byte, at, floor int) (start, end int, ok bool) {
	after := at + 1
	if text[at] == '%' {
		if len(text) < at+3 || text[at+1] != '4' || text[at+2] != '0' {
			return 0, 0, false
		}
		after = at + 3
	}
	start = at
	for start > floor && at-start <= maxLocal && isLocal(text[start-1]) {
		start--
	}
	for start < at && (text[start] == '.' || text[start] == '\'') {
		start++
	}
	if at-start == 0 || at-start > maxLocal || text[at-1] == '.' {
		return 0, 0, false
	}
	end, label, dots := after, after, 0
	for end < len(text) && end-after < maxDomain {
		c := text[end]
		if c == '.' && end > label && end+1 < len(text) && isLabel(text[end+1]) && text[end+1] != '-' {
			dots++
			label = end + 1
		} else if !isLabel(c) {
			break
		}
		end++
	}
	for end < len(text) && text[end]&0xc0 == 0x80 {
		end++ // the rest of a character
	}
	for end > label && text[end-1] == '-' {
		end--
	}
	return start, end, dots > 0 && end-label >= 2 && !isDigit(text[label])
}

// isLocal is true for what an address has before its @ without quotes (RFC 5322 section 3.2.3), but for signs that are around
// addresses more often than in them, and for all letters beyond ASCII (RFC 6531).
func isLocal(c byte) bool {
	switch c {
	case '.', '_', '-', '+', '\'', '~', '!', '#', '$', '^', '*':
		return true
	}
	return isAlnum(c) || c >= 0x80
}

func isLabel(c byte) bool { return isAlnum(c) || c == '-' || c >= 0x80 }
