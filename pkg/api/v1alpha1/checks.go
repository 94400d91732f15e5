package v1alpha1

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The checks below answer "" for a good value, else what was found and what was expected.

// checkLabel asks for a DNS label as RFC 1123 section 2.1 has it, in lower case.
func checkLabel(name string) string {
	const expected = "expected a DNS label: lower-case letters, digits and inner dashes, at most 63 characters"
	if name == "" {
		return "is missing; " + expected
	}
	if len(name) > 63 || strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-") ||
		strings.ContainsFunc(name, func(r rune) bool { return !isLabelRune(r) }) {
		return fmt.Sprintf("found %s; %s", quote(name), expected)
	}
	return ""
}

func isLabelRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-'
}

// checkOneOf asks for one of the words of an enumeration.
func checkOneOf(value string, words ...string) string {
	for _, word := range words {
		if value == word {
			return ""
		}
	}
	expected := words[0]
	if last := len(words) - 1; last > 0 {
		expected = strings.Join(words[:last], ", ") + " or " + words[last]
	}
	if value == "" {
		return "is missing; expected " + expected
	}
	return fmt.Sprintf("found %s; expected %s", quote(value), expected)
}

// checkHost asks for an IP address or a DNS name. Underscores are let pass, as resolvers do.
func checkHost(host string) string {
	if addr, err := netip.ParseAddr(host); err == nil {
		return checkAddr(addr)
	}
	const expected = "expected a DNS name or an IP address"
	if len(host) > 253 {
		return "is longer than 253 characters; " + expected
	}
	labels := strings.Split(strings.ToLower(host), ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool { return !isLabelRune(r) && r != '_' }) {
			return fmt.Sprintf("found %s; %s", quote(host), expected)
		}
	}
	// A name that ends in a number is a mistyped address.
	if _, err := strconv.ParseUint(labels[len(labels)-1], 0, 64); err == nil {
		return fmt.Sprintf("found %s, which is neither; %s", quote(host), expected)
	}
	return ""
}

func checkAddr(addr netip.Addr) string {
	switch {
	case addr.Is4In6():
		return fmt.Sprintf("found %s; expected it as IPv4: %s", addr, addr.Unmap())
	case addr.Zone() != "":
		return fmt.Sprintf("found %s; expected an address without a zone", addr)
	case addr.IsUnspecified(), addr.IsMulticast():
		return fmt.Sprintf("found %s; expected an address of one host", addr)
	}
	return ""
}

// checkCIDR asks for a range in its one canonical spelling, so that equal ranges are equal strings.
func checkCIDR(cidr string) string {
	prefix, err := netip.ParsePrefix(cidr)
	switch {
	case err != nil:
		return fmt.Sprintf("found %s; expected a range of addresses such as 10.8.0.0/24", quote(cidr))
	case prefix.Addr().Is4In6():
		return fmt.Sprintf("found %s; expected an IPv4 range to be written as IPv4", quote(cidr))
	case prefix.Masked().String() != cidr:
		return fmt.Sprintf("found %s; expected %s", quote(cidr), prefix.Masked())
	case prefix.Addr().IsMulticast():
		return fmt.Sprintf("found %s; expected a range of hosts", quote(cidr))
	}
	return ""
}

// checkHostPort asks for host:port, with an IPv6 address in brackets.
func checkHostPort(address string) string {
	const expected = "expected host:port, such as db.internal:5432 or [2001:db8::1]:5432"
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Sprintf("found %s; %s", quote(address), expected)
	}
	if message := checkHost(host); message != "" {
		return message
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Sprintf("found port %s; expected a port from 1 to 65535", quote(port))
	}
	return ""
}

// checkFile asks for the absolute, clean path of a file.
func checkFile(file string) string {
	if file == "" {
		return "is missing; expected the absolute path of a file"
	}
	if !path.IsAbs(file) || path.Clean(file) != file || file == "/" || checkText(file, 4095) != "" {
		return fmt.Sprintf("found %s; expected the absolute, clean path of a file", quote(file))
	}
	return ""
}

// checkUsername leaves the rest to the server: a role may have any name that is text.
func checkUsername(name string) string {
	if name == "" {
		return "is missing; expected the name of a role"
	}
	return checkText(name, 255)
}

// checkText asks for printable text of at most limit bytes.
func checkText(text string, limit int) string {
	switch {
	case len(text) > limit:
		return fmt.Sprintf("has %d bytes; expected at most %d", len(text), limit)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return "has a control character; expected one line of text"
	}
	return ""
}

// isVariable is true for a name that a shell can set (POSIX, XBD section 8.1, with lower case let pass).
func isVariable(name string) bool {
	for i, r := range name {
		letter := r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r == '_'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// quote quotes what was found, cut to a length that fits an error.
func quote(value string) string {
	if len(value) > 64 {
		return strconv.Quote(value[:64]) + "…"
	}
	return strconv.Quote(value)
}
