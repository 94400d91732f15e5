package webhook

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/approval"
)

const secret = "s3cret"

// files holds what documents name.
type files map[string][]byte

func (f files) ReadFile(_ context.Context, path string) ([]byte, error) {
	content, ok := f[path]
	if !ok {
		return nil, errors.New("no such file")
	}
	return append([]byte(nil), content...), nil
}

// An endpoint is a web server that answers as told and remembers what it got.
type endpoint struct {
	*httptest.Server
	hook  v1alpha1.Webhook
	files files

	mu      sync.Mutex
	answers []int // the last one stays
	got     []*http.Request
	bodies  []string
}

func newEndpoint(t *testing.T, answers ...int) *endpoint {
	t.Helper()
	e := &endpoint{answers: answers}
	e.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.got, e.bodies = append(e.got, r), append(e.bodies, string(body))
		status := e.answers[min(len(e.got), len(e.answers))-1]
		if status/100 == 3 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(e.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificate().Raw})
	e.files = files{"/secret": []byte(secret + "\n"), "/ca": ca}
	e.hook = v1alpha1.Webhook{URL: e.URL + "/hook", Secret: v1alpha1.SecretSource{File: "/secret"}, CA: &v1alpha1.FileSource{File: "/ca"}}
	return e
}

// send sends one message and returns what became of it.
func (e *endpoint) send(t *testing.T, r approval.Request) string {
	t.Helper()
	results := make(chan string, 1)
	s := NewSender(e.files, func(policy, result string) { results <- policy + " " + result }, zap.NewNop())
	s.pause = time.Millisecond
	defer s.Close()
	s.Send(e.hook, r)
	select {
	case result := <-results:
		return result
	case <-time.After(20 * time.Second):
		t.Fatal("nothing becomes of the message")
		return ""
	}
}

var held = approval.Request{
	ID: "0123abcd", State: approval.Pending, Policy: "p", Rule: "big", Target: "orders", Expires: time.Unix(1e9, 0),
	Workload: approval.Workload{Name: "shop", UID: 1000}, Text: "DELETE\nFROM <!here> WHERE a & b\x1b[2J",
}

func TestMessageIsSignedAndReadable(t *testing.T) {
	e := newEndpoint(t, http.StatusOK)
	if result := e.send(t, held); result != "p sent" {
		t.Fatal(result)
	}
	signature := e.got[0].Header.Get(HeaderSignature)
	seconds, _, _ := strings.Cut(strings.TrimPrefix(signature, "t="), ",")
	at, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || time.Since(time.Unix(at, 0)) > time.Minute {
		t.Errorf("the time of %s: %v", signature, err)
	}
	if want := Sign([]byte(secret), time.Unix(at, 0), []byte(e.bodies[0])); signature != want {
		t.Errorf("the signature is %s, not %s", signature, want)
	}
	var got payload
	if err := json.Unmarshal([]byte(e.bodies[0]), &got); err != nil {
		t.Fatal(err)
	}
	want := "Held until 2001-09-09T01:46:40Z: shop (uid 1000) on orders, rule big of policy p, request 0123abcd\n" +
		"> DELETE FROM &lt;!here&gt; WHERE a &amp; b [2J\nsallyport approvals approve 0123abcd"
	if got.Event != "held" || got.Text != want || got.Request.Text != held.Text {
		t.Errorf("the message is %+v", got)
	}
}

func TestTextTellsHowARequestEnded(t *testing.T) {
	r := held
	r.State = approval.Denied
	r.Decision = &approval.Decision{By: &approval.By{UID: 1001, User: "alice"}, Reason: "not <now>"}
	if got := payloadOf(r); got.Event != "denied" || got.Text != "Request 0123abcd denied by alice: shop (uid 1000) on orders: not &lt;now&gt;" {
		t.Errorf("got %+v", got)
	}
	r.State, r.Decision = approval.Expired, &approval.Decision{}
	if got := payloadOf(r); got.Text != "Request 0123abcd expired: shop (uid 1000) on orders" {
		t.Errorf("got %+v", got)
	}
}

func TestSignatureIsWhatOthersCompute(t *testing.T) {
	// printf '1000000000.{}' | openssl dgst -sha256 -hmac s3cret
	const want = "t=1000000000,v1=3e0e7f835dd00480bbe31b0e346828a9da637c42d1613c954de296811314979f"
	if got := Sign([]byte(secret), time.Unix(1e9, 0), []byte("{}")); got != want {
		t.Errorf("got %s", got)
	}
}

func TestMessageIsSentAgainWhereThatMayHelp(t *testing.T) {
	for _, test := range []struct {
		name    string
		answers []int
		result  string
		times   int
	}{
		{"taken at once", []int{204}, "sent", 1},
		{"busy for a while", []int{503, 429, 500, 200}, "sent", 4},
		{"busy for good", []int{503}, "failed", attempts},
		{"refused", []int{404}, "failed", 1},
		{"sent elsewhere", []int{302}, "failed", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := newEndpoint(t, test.answers...)
			if result := e.send(t, held); result != "p "+test.result {
				t.Error(result)
			}
			if len(e.got) != test.times {
				t.Errorf("sent %d times", len(e.got))
			}
			ids := map[string]bool{}
			for _, r := range e.got {
				ids[r.Header.Get(HeaderDelivery)] = true
			}
			if len(ids) != 1 {
				t.Errorf("the attempts have the ids %v", ids)
			}
		})
	}
}

func TestNothingIsSentToWhomItIsNotFor(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*endpoint)
	}{
		{"a certificate of nobody that is trusted", func(e *endpoint) { e.hook.CA = nil }},
		{"a certificate for another name", func(e *endpoint) { e.hook.URL = strings.Replace(e.hook.URL, "127.0.0.1", "localhost", 1) }},
		{"no secret to sign with", func(e *endpoint) { delete(e.files, "/secret") }},
		{"a CA file without a certificate", func(e *endpoint) { e.files["/ca"] = []byte("none") }},
		{"a CA file that is gone", func(e *endpoint) { delete(e.files, "/ca") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := newEndpoint(t, http.StatusOK)
			e.Server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
			test.change(e)
			if result := e.send(t, held); result != "p failed" || len(e.got) != 0 {
				t.Errorf("%s, and %d came", result, len(e.got))
			}
		})
	}
}

func TestWhatIsTooMuchIsDroppedAndCounted(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	var mu sync.Mutex
	results := map[string]int{}
	s := NewSender(files{"/secret": []byte(secret)}, func(_, result string) {
		mu.Lock()
		defer mu.Unlock()
		results[result]++
	}, zap.NewNop())
	hook := v1alpha1.Webhook{URL: server.URL, Secret: v1alpha1.SecretSource{File: "/secret"}}
	const sent = queued + workers + 50
	for i := range sent {
		r := held
		r.ID = fmt.Sprintf("%08d", i)
		s.Send(hook, r)
	}
	close(release)
	s.Close()
	s.Send(hook, held) // too late
	if results[ResultDropped] < 51 || results[ResultDropped]+results[ResultSent]+results[ResultFailed] != sent+1 {
		t.Error(cmp.Diff(map[string]int{}, results))
	}
}
