package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/approval/webhook"
)

func TestWebhookIsToldOfWhatIsHeldAndHowItEnded(t *testing.T) {
	t.Parallel()
	type told struct {
		signature string
		body      []byte
	}
	came := make(chan told, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		came <- told{r.Header.Get(webhook.HeaderSignature), body}
	}))
	defer server.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("k3y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := holding(t, options{record: fmt.Sprintf("{}\n  approvals: {webhook: {url: %q, secret: {file: %q}}}", server.URL+"/hook", secret)})
	psql := w.psqlHeld("", "DELETE FROM orders")
	r := w.pending()
	w.decide(approverUID, "deny", r.ID, "--reason", "no")
	<-psql
	for _, want := range []string{"held", "denied"} {
		var got told
		select {
		case got = <-came:
		case <-time.After(patience):
			t.Fatalf("nothing is told of %s", want)
		}
		var message struct {
			Text, Event string
			Request     shown
		}
		if err := json.Unmarshal(got.body, &message); err != nil {
			t.Fatal(err)
		}
		if message.Event != want || message.Request.ID != r.ID || !strings.Contains(message.Text, r.ID) {
			t.Errorf("the message is %s", got.body)
		}
		seconds, _, _ := strings.Cut(strings.TrimPrefix(got.signature, "t="), ",")
		at, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil || webhook.Sign([]byte("k3y"), time.Unix(at, 0), got.body) != got.signature {
			t.Errorf("the signature is %s, %v", got.signature, err)
		}
	}
	await(t, "both are counted", func() bool {
		return w.metric(`sallyport_approval_webhooks_total{policy="orders",result="sent"}`) == 2
	})
}
