package v1alpha1

import (
	"fmt"
	"slices"
	"strings"
)

func (s *AccessPolicySpec) defaultMasks() {
	for i := range s.Masks {
		m := &s.Masks[i]
		if m.Name == "" {
			m.Name = fmt.Sprintf("mask-%d", i+1)
		}
		if m.Inference == "" {
			m.Inference = InferenceAllow
		}
		m.Approval.setDefaults()
	}
	if len(s.Masks) > 0 && s.Masking.Mode == "" {
		s.Masking.Mode = MaskingStrict
	}
}

func (s *AccessPolicySpec) validateMasks(p *problems) {
	hashes := -1
	seen := map[string]int{}
	for i := range s.Masks {
		m := &s.Masks[i]
		field := fmt.Sprintf("spec.masks[%d]", i)
		m.validate(p, field)
		if m.With == MaskHash && hashes < 0 {
			hashes = i
		}
		if first, ok := seen[m.Name]; ok {
			p.add(field+".name", "is the same as spec.masks[%d].name; expected names that are unique within the policy", first)
			continue
		}
		seen[m.Name] = i
	}
	s.Masking.validate(p, len(s.Masks) > 0)
	if hashes >= 0 && s.Masking.HashKey == nil {
		p.add("spec.masking.hashKey", "is missing, and spec.masks[%d] says hash; expected {file: /run/secrets/NAME} or {env: NAME}", hashes)
	}
}

func (m *Mask) validate(p *problems, field string) {
	p.check(field+".name", checkLabel(m.Name))
	switch {
	case len(m.Columns) > 0 && len(m.Detect) > 0:
		p.add(field, "has both columns and detect; expected exactly one of them")
	case len(m.Columns) == 0 && len(m.Detect) == 0:
		p.add(field, "has neither columns nor detect; expected exactly one of them")
	}
	for i, pattern := range m.Columns {
		if _, message := ParseColumn(pattern); message != "" {
			p.add(fmt.Sprintf("%s.columns[%d]", field, i), "%s", message)
		}
	}
	for i, name := range m.Detect {
		at := fmt.Sprintf("%s.detect[%d]", field, i)
		p.check(at, checkOneOf(name, Detectors()...))
		if first := slices.Index(m.Detect, name); first < i {
			p.add(at, "is the same as %s.detect[%d]; expected each once", field, first)
		}
	}
	p.check(field+".with", checkOneOf(m.With, MaskRedact, MaskPartial, MaskHash, MaskNull, MaskFixed))
	switch {
	case m.With == MaskFixed && m.Value == nil:
		p.add(field+".value", "is missing; expected what fixed puts in place")
	case m.With != MaskFixed && m.Value != nil:
		p.add(field+".value", "contradicts %s; expected with: fixed, or no value", quote(m.With))
	case m.Value != nil:
		p.check(field+".value", checkText(*m.Value, 1024))
	}
	p.check(field+".inference", checkOneOf(m.Inference, InferenceAllow, InferenceDeny, InferenceApprove))
	m.Approval.validate(p, field+".approval", "inference", m.Inference == InferenceApprove)
	if len(m.Detect) > 0 && (m.Inference == InferenceDeny || m.Inference == InferenceApprove) {
		p.add(field+".inference", "is about columns, and the mask has none; expected no inference")
	}
}

func (m *Masking) validate(p *problems, masks bool) {
	if !masks {
		if m.Mode != "" || len(m.TrustedFunctions) > 0 || m.HashKey != nil {
			p.add("spec.masking", "is about masks, and the policy has none; expected spec.masks, or no masking")
		}
		return
	}
	p.check("spec.masking.mode", checkOneOf(m.Mode, MaskingStrict, MaskingLenient))
	for i, name := range m.TrustedFunctions {
		if _, message := ParseFunction(name); message != "" {
			p.add(fmt.Sprintf("spec.masking.trustedFunctions[%d]", i), "%s", message)
		}
	}
	if m.HashKey != nil {
		m.HashKey.validate(p, "spec.masking.hashKey")
	}
}

// A ColumnPattern is which columns a mask hides. A part "" is any name; the others are in lower case.
type ColumnPattern struct{ Schema, Table, Column string }

// ParseColumn reads an element of Mask.Columns; message is "" when it is one.
func ParseColumn(pattern string) (c ColumnPattern, message string) {
	const expected = `expected schema.table.column, where a part may be "*", or *.column`
	parts, ok := splitName(pattern)
	if !ok || len(parts) != 3 && (len(parts) != 2 || parts[0] != "") {
		return c, fmt.Sprintf("found %s; %s", quote(pattern), expected)
	}
	if len(parts) == 2 {
		parts = []string{"", "", parts[1]}
	}
	if parts[0] == "" && parts[1] == "" && parts[2] == "" {
		return c, fmt.Sprintf("found %s, which is every column; expected a table or a column to be named", quote(pattern))
	}
	return ColumnPattern{parts[0], parts[1], parts[2]}, ""
}

// A FunctionName is a function in its schema, as the catalog spells both.
type FunctionName struct{ Schema, Name string }

// ParseFunction reads an element of Masking.TrustedFunctions; message is "" when it is one. Case matters here: a function that
// only looks like the trusted one is not trusted.
func ParseFunction(name string) (f FunctionName, message string) {
	schema, function, ok := strings.Cut(name, ".")
	if !ok || schema == "" || function == "" || strings.ContainsAny(name, `*"`) || strings.Contains(function, ".") || checkText(name, 127) != "" {
		return f, fmt.Sprintf("found %s; expected schema.name", quote(name))
	}
	return FunctionName{schema, function}, ""
}

// splitName splits at dots outside double quotes and lowers the case; "*" becomes "". It is false for what is no such name.
func splitName(name string) ([]string, bool) {
	if checkText(name, 256) != "" {
		return nil, false
	}
	var parts []string
	for rest := name; ; {
		part, after, quoted, ok := cutName(rest)
		if !ok {
			return nil, false
		}
		switch {
		case !quoted && part == "*":
			part = ""
		case part == "", !quoted && strings.ContainsAny(part, "*\" "):
			return nil, false
		}
		parts = append(parts, strings.ToLower(part))
		if after == "" {
			return parts, true
		}
		rest = after[1:]
	}
}

// cutName cuts the first part off; after is "" or begins with the dot.
func cutName(name string) (part, after string, quoted, ok bool) {
	body, quoted := strings.CutPrefix(name, `"`)
	if !quoted {
		if i := strings.IndexByte(name, '.'); i >= 0 {
			return name[:i], name[i:], false, true
		}
		return name, "", false, true
	}
	part, after, ok = strings.Cut(body, `"`)
	return part, after, true, ok && (after == "" || after[0] == '.')
}
