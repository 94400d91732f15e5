package postgres

import (
	"encoding/hex"

	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/record"
)

// statementFragment is an operation's text; executes are the texts of the prepared statements that it runs by EXECUTE.
func statementFragment(text, fingerprint string, executes ...string) record.Fragment {
	return record.NewFragment(struct {
		Text        string   `json:"text"`
		Fingerprint string   `json:"fingerprint,omitempty"`
		Executes    []string `json:"executes,omitempty"`
	}{text, fingerprint, executes})
}

func decisionFragment(d policy.Decision) record.Fragment {
	return record.NewFragment(struct {
		Decision string `json:"decision"`
		Policy   string `json:"policy,omitempty"`
		Rule     string `json:"rule"`
	}{d.Action.String(), d.Policy, d.Rule})
}

// allParameters is the values of a Bind, of which r is at the parameters' formats.
func allParameters(r *reader) record.Fragment {
	var formats []int
	for range r.uint16() {
		formats = append(formats, r.uint16())
	}
	n := r.uint16()
	var values []string
	for i := range n {
		length := r.uint32()
		if length == 0xffffffff {
			values = append(values, "NULL")
			continue
		}
		v := r.take(int(length))
		if r.bad {
			values = append(values, "…") // the message is longer than what is looked at
			break
		}
		if format(formats, i) == 0 {
			values = append(values, string(v))
		} else {
			values = append(values, `\x`+hex.EncodeToString(v))
		}
	}
	return record.NewFragment(struct {
		Parameters []string `json:"parameters"`
	}{values})
}

// format is the i-th parameter's: none given means text, one stands for all.
func format(formats []int, i int) int {
	switch {
	case len(formats) == 0:
		return 0
	case i < len(formats):
		return formats[i]
	default:
		return formats[0]
	}
}
