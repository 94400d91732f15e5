package webhook

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/sallyport-dev/sallyport/pkg/approval"
)

// shownText is how much of a statement the text for people shows, in characters; the request has it whole.
const shownText = 500

// A payload is the body of a message. Chat services that understand {"text": …}, as Slack's incoming webhooks do, show Text.
type payload struct {
	// Text is for people.
	Text string `json:"text"`
	// Event is "held", or the state in which the request has ended.
	Event string `json:"event"`
	// Request is the whole of it, as the API shows it.
	Request approval.Request `json:"request"`
}

func payloadOf(r approval.Request) payload {
	p := payload{Event: string(r.State), Request: r.Shown()}
	where := fmt.Sprintf("%s (uid %d) on %s", plain(r.Workload.Name, 200), r.Workload.UID, plain(r.Target, 200))
	if r.State == approval.Pending {
		p.Event = "held"
		p.Text = fmt.Sprintf("Held until %s: %s, rule %s of policy %s, request %s\n> %s\nsallyport approvals approve %s",
			r.Expires.UTC().Format(time.RFC3339), where, plain(r.Rule, 200), plain(r.Policy, 200), r.ID, plain(r.Text, shownText), r.ID)
		return p
	}
	p.Text = fmt.Sprintf("Request %s %s", r.ID, r.State)
	if d := r.Decision; d != nil && d.By != nil {
		p.Text += " by " + plain(d.By.String(), 200)
	}
	p.Text += ": " + where
	if d := r.Decision; d != nil && d.Reason != "" {
		p.Text += ": " + plain(d.Reason, shownText)
	}
	return p
}

// plain is text on one line of at most limit characters that a chat service takes for nothing but text: &, < and > are its markup.
func plain(text string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if n++; n > limit {
			b.WriteString("…")
			break
		}
		switch {
		case r == '&':
			b.WriteString("&amp;")
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteByte(' ')
		}
	}
	return b.String()
}
