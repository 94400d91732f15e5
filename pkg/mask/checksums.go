package mask

// The functions below look at digits, as values, whose number is right already.

// luhn is the checksum of payment cards (ISO/IEC 7812-1 annex B).
func luhn(d []byte) bool {
	sum := 0
	for i := range d {
		v := int(d[len(d)-1-i])
		if i%2 == 1 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0
}

// issuers are ranges of the first four digits of cards, with the lengths that they have.
var issuers = []struct{ first, last, min, max int }{
	{2200, 2204, 16, 19}, // Mir
	{2221, 2720, 16, 16}, // Mastercard
	{3000, 3059, 14, 19}, // Diners Club
	{3400, 3499, 15, 15}, // American Express
	{3528, 3589, 16, 19}, // JCB
	{3600, 3699, 14, 19}, // Diners Club
	{3700, 3799, 15, 15}, // American Express
	{3800, 3999, 14, 19}, // Diners Club
	{4000, 4999, 16, 16}, // Visa
	{4000, 4999, 13, 13},
	{4000, 4999, 19, 19},
	{5000, 5099, 12, 19}, // Maestro
	{5100, 5599, 16, 16}, // Mastercard
	{5600, 5899, 12, 19}, // Maestro
	{6011, 6011, 16, 19}, // Discover
	{6200, 6299, 16, 19}, // UnionPay
	{6300, 6399, 12, 19}, // Maestro
	{6440, 6599, 16, 19}, // Discover
	{6700, 6799, 12, 19}, // Maestro
}

func isCard(d []byte) bool {
	first := int(d[0])*1000 + int(d[1])*100 + int(d[2])*10 + int(d[3])
	for _, i := range issuers {
		if first >= i.first && first <= i.last && len(d) >= i.min && len(d) <= i.max {
			return luhn(d)
		}
	}
	return false
}

// isSSN knows what the Social Security Administration never gave out: areas 000, 666 and 900 on, group 00, serial 0000.
func isSSN(d []byte) bool {
	area := value(d[:3])
	return area != 0 && area != 666 && area < 900 && value(d[3:5]) != 0 && value(d[5:]) != 0
}

// value is the number that digits are.
func value(d []byte) (v int) {
	for _, c := range d {
		v = v*10 + int(c&0x0f)
	}
	return v
}

// weighted sums the digits times weights.
func weighted(d []byte, weights ...int) (sum int) {
	for i, w := range weights {
		sum += w * int(d[i])
	}
	return sum
}

// isTaxID is Germany's Steuer-Identifikationsnummer: of the first ten digits one is there two or three times, the check digit is
// that of ISO 7064 MOD 11,10.
func isTaxID(d []byte) bool {
	if d[0] == 0 {
		return false
	}
	var seen [10]int
	product := 10
	for _, c := range d[:10] {
		seen[c]++
		sum := (int(c) + product) % 10
		if sum == 0 {
			sum = 10
		}
		product = sum * 2 % 11
	}
	repeated := 0
	for _, n := range seen {
		if n > 3 {
			return false
		}
		if n > 1 {
			repeated++
		}
	}
	return repeated == 1 && (11-product)%10 == int(d[10])
}

// isNIR is France's numéro de sécurité sociale with its key: 97 less the rest of the other 13 digits. Those of Corsica, whose
// department has a letter, are not known.
func isNIR(d []byte) bool {
	month := value(d[3:5])
	if d[0] == 0 || d[0] > 4 && d[0] != 7 && d[0] != 8 || month == 0 || month > 12 && month < 20 || month > 42 && month < 50 {
		return false
	}
	rest := 0
	for _, c := range d[:13] {
		rest = (rest*10 + int(c)) % 97
	}
	return 97-rest == value(d[13:])
}

// isPESEL is Poland's number of persons, which begins with the day of birth; its century is added to the month.
func isPESEL(d []byte) bool {
	month, day := value(d[2:4])%20, value(d[4:6])
	return month >= 1 && month <= 12 && day >= 1 && day <= 31 && weighted(d, 1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)%10 == 0
}

// isNHS is the number of the National Health Service in England, Wales and the Isle of Man.
func isNHS(d []byte) bool {
	check := 11 - weighted(d, 10, 9, 8, 7, 6, 5, 4, 3, 2)%11
	return d[0] != 0 && check%11 == int(d[9])
}

// isAHV is Switzerland's number of the insured, an EAN-13 that begins with the country.
func isAHV(d []byte) bool {
	return value(d[:3]) == 756 && weighted(d, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1)%10 == 0
}

// isCPF is Brazil's cadastro de pessoas físicas, with two check digits.
func isCPF(d []byte) bool {
	same := true
	for _, c := range d {
		same = same && c == d[0]
	}
	first := weighted(d, 10, 9, 8, 7, 6, 5, 4, 3, 2) * 10 % 11 % 10
	second := weighted(d, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2) * 10 % 11 % 10
	return !same && first == int(d[9]) && second == int(d[10])
}

// isBSN is the Netherlands' burgerservicenummer.
func isBSN(d []byte) bool {
	sum := weighted(d, 9, 8, 7, 6, 5, 4, 3, 2, -1)
	return sum != 0 && sum%11 == 0
}

// Tables of Verhoeff's checksum: the group D5, and the permutation of each place.
var (
	verhoeffProduct = [10][10]byte{
		{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 2, 3, 4, 0, 6, 7, 8, 9, 5}, {2, 3, 4, 0, 1, 7, 8, 9, 5, 6}, {3, 4, 0, 1, 2, 8, 9, 5, 6, 7},
		{4, 0, 1, 2, 3, 9, 5, 6, 7, 8}, {5, 9, 8, 7, 6, 0, 4, 3, 2, 1}, {6, 5, 9, 8, 7, 1, 0, 4, 3, 2}, {7, 6, 5, 9, 8, 2, 1, 0, 4, 3},
		{8, 7, 6, 5, 9, 3, 2, 1, 0, 4}, {9, 8, 7, 6, 5, 4, 3, 2, 1, 0},
	}
	verhoeffPlace = [8][10]byte{
		{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 5, 7, 6, 2, 8, 3, 0, 9, 4}, {5, 8, 0, 3, 7, 9, 6, 1, 4, 2}, {8, 9, 1, 6, 0, 4, 3, 5, 2, 7},
		{9, 4, 5, 3, 1, 2, 6, 8, 7, 0}, {4, 2, 8, 6, 5, 7, 3, 9, 0, 1}, {2, 7, 9, 3, 8, 0, 6, 4, 1, 5}, {7, 0, 4, 6, 9, 1, 3, 2, 5, 8},
	}
)

// isAadhaar is India's number of residents, whose first digit is 2 at least.
func isAadhaar(d []byte) bool {
	check := byte(0)
	for i := range d {
		check = verhoeffProduct[check][verhoeffPlace[i%8][d[len(d)-1-i]]]
	}
	return d[0] >= 2 && check == 0
}

// dniLetters are the check letters of Spain's numbers, by the rest of the division by 23.
const dniLetters = "TRWAGMYFPDXBNJZSQVHLCKE"

// isDNI is true when the letter behind eight digits, at end, is theirs. A dash may be between.
func isDNI(text []byte, end int, d []byte) bool {
	return end < len(text) && text[end] == dniLetters[value(d)%23] && endsWord(text, end+1)
}

// nieAt recognises a foreigner's number: X, Y or Z, seven digits, a letter.
func nieAt(text []byte, start int) (end int, ok bool) {
	end = start + 9
	if end > len(text) || text[start] < 'X' || text[start] > 'Z' || !endsWord(text, end) {
		return 0, false
	}
	n := int(text[start] - 'X')
	for _, c := range text[start+1 : end-1] {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return end, text[end-1] == dniLetters[n%23]
}

// codiceOdd are the values of digits or letters at the odd places of a codice fiscale (decree of 23 December 1976).
var codiceOdd = [26]int{1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23}

// codiceFiscaleAt recognises six letters, two digits, a letter, two digits, a letter, three digits, and the check letter.
func codiceFiscaleAt(text []byte, start int) (end int, ok bool) {
	const form = "LLLLLLDDLDDLDDDL"
	end = start + len(form)
	if end > len(text) || !endsWord(text, end) {
		return 0, false
	}
	sum := 0
	for i, c := range text[start:end] {
		if isDigit(c) != (form[i] == 'D') || !isAlnum(c) {
			return 0, false
		}
		v := int(c - '0')
		if isLetter(c) {
			v = int(c&^0x20 - 'A')
		}
		switch {
		case i == len(form)-1:
			return end, sum%26 == v
		case i%2 == 0:
			sum += codiceOdd[v]
		default:
			sum += v
		}
	}
	return 0, false
}
