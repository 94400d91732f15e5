package mask

import (
	"slices"
	"strings"
)

// maxNumberDigits is the longest that is looked for: a payment card's (ISO/IEC 7812).
const maxNumberDigits = 19

// maxGroups bounds the groups of digits of one number.
const maxGroups = 8

// A number is digits in groups, with one sign between two groups.
type number struct {
	text   []byte
	digits [maxNumberDigits]byte // their values
	groups int
	length [maxGroups]int  // of each group
	total  [maxGroups]int  // of the groups up to it
	before [maxGroups]byte // the sign before the group, 0 for the first
	end    [maxGroups]int  // where the group ends in text
}

// read takes the groups that begin at start, as many as there is room for.
func (n *number) read(text []byte, start int) {
	n.text = text
	total := 0
	for i := start; n.groups < maxGroups; {
		var sign byte
		if n.groups > 0 {
			if i+1 >= len(text) || !isSeparator(text[i]) || !isDigit(text[i+1]) {
				return
			}
			sign = text[i]
			i++
		}
		group := i
		for i < len(text) && isDigit(text[i]) && i-group < maxNumberDigits+1 {
			i++
		}
		length := i - group
		if total+length > maxNumberDigits {
			return
		}
		for j := range length {
			n.digits[total+j] = text[group+j] - '0'
		}
		total += length
		n.length[n.groups], n.total[n.groups], n.before[n.groups], n.end[n.groups] = length, total, sign, i
		n.groups++
	}
}

func isSeparator(c byte) bool { return c == ' ' || c == '-' || c == '.' || c == '/' }

// match is the detector that knows the number, of what begins here the longest first, and where the number ends.
func (n *number) match(enabled detectors) (end int, d detectors) {
	for groups := n.groups; groups > 0; groups-- {
		end := n.end[groups-1]
		if d := n.of(groups, enabled); d != 0 {
			if d == esDNI {
				end++ // the letter
			}
			return end, d
		}
	}
	return 0, 0
}

// of looks at the first so many groups.
func (n *number) of(groups int, enabled detectors) detectors {
	total := n.total[groups-1]
	if total < minNumberDigits {
		return 0
	}
	d := n.digits[:total]
	end := n.end[groups-1]
	if enabled&esDNI != 0 && total == 8 && groups == 1 && isDNI(n.text, end, d) {
		return esDNI
	}
	if !endsWord(n.text, end) {
		return 0
	}
	for i := range kindsOf[total] {
		k := &kindsOf[total][i]
		if enabled&k.detector != 0 && k.isWritten(n, groups) && k.isValid(d) {
			return k.detector
		}
	}
	if enabled&phone != 0 && n.isPhone(groups, total) {
		return phone
	}
	return 0
}

// sameSign is true when the same sign is between all groups.
func (n *number) sameSign(groups int) bool {
	for i := 2; i < groups; i++ {
		if n.before[i] != n.before[1] {
			return false
		}
	}
	return true
}

// A numberKind is how a number with a checksum is written. The SSN, which has none, has one fixed form.
type numberKind struct {
	detector detectors
	min, max int     // digits
	plain    bool    // also without signs
	signs    string  // between the groups, the same between all
	shapes   [][]int // lengths of the groups
}

// numberKinds are in the order in which they are tried: the strictest forms first.
var numberKinds = []numberKind{
	{usSSN, 9, 9, false, "- ", [][]int{{3, 2, 4}}},
	{chAHV, 13, 13, true, ".", [][]int{{3, 4, 4, 2}}},
	{brCPF, 11, 11, true, "", nil},
	{paymentCard, 12, 19, true, " -", [][]int{{4, 4, 4, 4}, {4, 6, 5}, {4, 6, 4}, {4, 4, 4, 4, 3}, {4, 4, 4, 1}, {6, 13}, {4, 4, 5}}},
	{frNIR, 15, 15, true, " .-", [][]int{{1, 2, 2, 2, 3, 3, 2}, {13, 2}}},
	{deTaxID, 11, 11, true, " /", [][]int{{2, 3, 3, 3}}},
	{plPESEL, 11, 11, true, "", nil},
	{ukNHS, 10, 10, true, " -", [][]int{{3, 3, 4}}},
	{inAadhaar, 12, 12, true, " -", [][]int{{4, 4, 4}}},
	{nlBSN, 9, 9, true, " .-", [][]int{{4, 2, 3}, {3, 3, 3}}},
}

// minNumberDigits is the shortest number that is looked for: a DNI's.
const minNumberDigits = 8

// kindsOf are the kinds that have so many digits.
var kindsOf = func() (of [maxNumberDigits + 1][]numberKind) {
	for _, k := range numberKinds {
		for n := k.min; n <= k.max; n++ {
			of[n] = append(of[n], k)
		}
	}
	return of
}()

// isWritten is true when the first so many groups are written as the kind's are.
func (k *numberKind) isWritten(n *number, groups int) bool {
	switch {
	case groups == 1:
		return k.plain
	case k.detector == brCPF:
		return isCPFShaped(n, groups)
	case strings.IndexByte(k.signs, n.before[1]) < 0 || !n.sameSign(groups):
		return false
	}
	return slices.ContainsFunc(k.shapes, func(shape []int) bool { return slices.Equal(shape, n.length[:groups]) })
}

// isValid asks the checksum of the kind.
func (k *numberKind) isValid(d []byte) bool {
	switch k.detector {
	case usSSN:
		return isSSN(d)
	case chAHV:
		return isAHV(d)
	case brCPF:
		return isCPF(d)
	case paymentCard:
		return isCard(d)
	case frNIR:
		return isNIR(d)
	case deTaxID:
		return isTaxID(d)
	case plPESEL:
		return isPESEL(d)
	case ukNHS:
		return isNHS(d)
	case inAadhaar:
		return isAadhaar(d)
	case nlBSN:
		return isBSN(d)
	}
	return false
}

// isCPFShaped is true for 123.456.789-09.
func isCPFShaped(n *number, groups int) bool {
	return groups == 4 && [4]int(n.length[:4]) == [4]int{3, 3, 3, 2} && [4]byte(n.before[:4]) == [4]byte{0, '.', '.', '-'}
}

// isPhone is true for national numbers as people write them: with signs between groups, and the North American form or a 0 first.
// Digits alone may be anything, and so are no phone.
func (n *number) isPhone(groups, total int) bool {
	if groups < 2 || !n.sameSign(groups) && (n.before[1] != '/' || n.before[2] == '.') {
		return false
	}
	sign, d := n.before[1], n.digits[:total]
	switch {
	case total == 10 && groups == 3 && n.length[0] == 3 && n.length[1] == 3:
		return (sign == '-' || sign == '.') && isNorthAmerican(d)
	case total == 11 && groups == 4 && d[0] == 1 && n.length[0] == 1 && n.length[1] == 3 && n.length[2] == 3:
		return (sign == '-' || sign == '.') && isNorthAmerican(d[1:])
	case d[0] != 0 || d[1] == 0 || total < 9 || total > 12 || n.length[0] < 2 || n.length[0] > 6:
		return false
	case sign == '.':
		return groups == 5 && total == 10 && n.length[0] == 2 && n.length[1] == 2 && n.length[2] == 2 && n.length[3] == 2
	}
	return true
}

// isNorthAmerican looks at area and exchange: neither begins with 0 or 1, and an area is no service such as 911.
func isNorthAmerican(d []byte) bool {
	return d[0] >= 2 && d[3] >= 2 && (d[1] != 1 || d[2] != 1)
}

// Digits of an international number, the country's code included (E.164 section 6); fewer than 9 are seldom a phone's.
const minPhone, maxPhone = 9, 15

// phoneAt recognises +49 30 1234567 and (212) 555-0123 at their first sign.
func phoneAt(text []byte, i int) (end int, ok bool) {
	var d [maxPhone + 1]byte
	n, open := 0, text[i] == '('
	closed := -1
	for end = i + 1; end < len(text) && n <= maxPhone; end++ {
		c := text[end]
		if isDigit(c) {
			d[n] = c - '0'
			n++
			continue
		}
		next := end+1 < len(text) && (isDigit(text[end+1]) || text[end+1] == '(')
		switch {
		case c == ')' && open && n > 0:
			open, closed = false, n
			if end+1 < len(text) && (text[end+1] == ' ' || text[end+1] == '-') {
				end++
			}
			if end+1 >= len(text) || !isDigit(text[end+1]) {
				return 0, false
			}
			continue
		case c == '(' && !open && closed < 0 && n > 0:
			open = true
			continue
		case isSeparator(c) && next && !open && n > 0:
			continue
		}
		break
	}
	if open || n > maxPhone || !endsWord(text, end) {
		return 0, false
	}
	if text[i] == '+' {
		return end, n >= minPhone && d[0] != 0
	}
	if closed == 3 && n == 10 && d[0] != 0 {
		return end, isNorthAmerican(d[:n])
	}
	return end, closed >= 2 && closed <= 6 && d[0] == 0 && d[1] != 0 && n >= minPhone && n <= 12
}
