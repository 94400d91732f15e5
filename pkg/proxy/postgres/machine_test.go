package postgres

import (
	"errors"
	"strings"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
)

func TestASessionWhoseLeaseHasEndedEnds(t *testing.T) {
	m := &machine{session: "S1", status: 'I'}
	var out relay.Output
	if err := m.Expire(&out); !errors.Is(err, relay.ErrDone) || !m.expired {
		t.Errorf("got %v", err)
	}
	said := string(out.Forwarded())
	if !strings.Contains(said, "57P01") || !strings.Contains(said, "credential has expired") {
		t.Errorf("the client is told %q", said)
	}
	m.backendMid = true
	out.Reset()
	if err := m.Expire(&out); !errors.Is(err, relay.ErrDone) || len(out.Forwarded()) > 0 {
		t.Errorf("in the middle of a message: %v, %q", err, out.Forwarded())
	}
}
