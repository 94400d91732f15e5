// Package webhook tells HTTP endpoints of requests for approval: JSON with a text for chat services, signed. docs/approvals.md has the
// form. What can not be delivered is tried again for a while, counted and logged; nobody waits for it.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/credential/static"
)

const (
	// queued is how many messages may wait; more are dropped and counted.
	queued = 256
	// workers is how many are sent at a time, so that one slow endpoint does not hold up another.
	workers = 4
	// attempts is how often a message is sent, with pauses that begin with firstPause and double.
	attempts   = 5
	firstPause = time.Second
	// attemptTimeout bounds one attempt, lastTimeout all that is left when the sender closes.
	attemptTimeout = 10 * time.Second
	lastTimeout    = 2 * time.Second
)

// Headers of a message.
const (
	// HeaderSignature is "t=SECONDS,v1=HEX": HMAC-SHA-256, by the webhook's secret, of SECONDS, a full stop and the body. SECONDS is the Unix time of
	// the attempt; a receiver refuses what is old.
	HeaderSignature = "Sallyport-Signature"
	// HeaderDelivery is the same for all attempts of one message.
	HeaderDelivery = "Sallyport-Delivery"
)

// Results of a message.
const (
	ResultSent    = "sent"
	ResultFailed  = "failed"
	ResultDropped = "dropped"
)

// A Sender sends messages. It is safe for concurrent use.
type Sender struct {
	files  static.Files
	count  func(policy, result string)
	log    *zap.Logger
	pause  time.Duration // before the second attempt
	queue  chan message
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	ending chan struct{} // closed with it
}

// message is one thing to tell one endpoint.
type message struct {
	hook     v1alpha1.Webhook
	policy   string
	request  string
	delivery string
	body     []byte
}

// NewSender starts the workers. count is told how each message of a policy went.
func NewSender(files static.Files, count func(policy, result string), log *zap.Logger) *Sender {
	s := &Sender{files: files, count: count, log: log, pause: firstPause, queue: make(chan message, queued), ending: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for range workers {
		s.done.Go(func() {
			for m := range s.queue {
				s.deliver(m)
			}
		})
	}
	return s
}

// Close takes no more, sends each message that waits once, and returns soon.
func (s *Sender) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.ending)
		close(s.queue)
	}
	s.mu.Unlock()
	stop := time.AfterFunc(lastTimeout, s.cancel)
	s.done.Wait()
	stop.Stop()
	s.cancel()
}

// Send tells an endpoint of a request that was made or has ended. It does not block.
func (s *Sender) Send(hook v1alpha1.Webhook, r approval.Request) {
	body, err := json.Marshal(payloadOf(r))
	if err != nil { // no value of a Request does that
		s.log.Error("webhook", zap.String("request", r.ID), zap.Error(err))
		return
	}
	m := message{hook: hook, policy: r.Policy, request: r.ID, delivery: rand.Text(), body: body}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		select {
		case s.queue <- m:
			return
		default:
		}
	}
	s.count(m.policy, ResultDropped)
	s.log.Error("webhook dropped: too many wait", zap.String("policy", m.policy), zap.String("request", m.request))
}

// deliver sends a message until it is taken, is refused for good, or was tried often enough.
func (s *Sender) deliver(m message) {
	pause := s.pause
	for attempt := 1; ; attempt++ {
		err := s.attempt(m)
		if err == nil {
			s.count(m.policy, ResultSent)
			return
		}
		var refused *refusal
		last := attempt == attempts || errors.As(err, &refused) && !refused.temporary() || s.isEnding()
		s.log.Warn("webhook", zap.String("policy", m.policy), zap.String("request", m.request), zap.Int("attempt", attempt), zap.Bool("last", last), zap.Error(err))
		if last {
			s.count(m.policy, ResultFailed)
			return
		}
		select {
		case <-time.After(pause):
		case <-s.ending: // one more, at once
		}
		pause *= 2
	}
}

func (s *Sender) isEnding() bool {
	select {
	case <-s.ending:
		return true
	default:
		return false
	}
}

// A refusal is an answer that is no success.
type refusal struct{ status int }

// Error names the status; what the endpoint says is nobody's business here.
func (r *refusal) Error() string { return fmt.Sprintf("the endpoint answers %d", r.status) }

func (r *refusal) temporary() bool {
	return r.status >= 500 || r.status == http.StatusTooManyRequests || r.status == http.StatusRequestTimeout
}

// attempt sends a message once. Errors do not name the URL, whose path is often a secret.
func (s *Sender) attempt(m message) error {
	ctx, cancel := context.WithTimeout(s.ctx, attemptTimeout)
	defer cancel()
	secret, err := static.Read(ctx, m.hook.Secret, s.files)
	if err != nil {
		return fmt.Errorf("secret of the webhook: %w", err)
	}
	defer clear(secret)
	client, err := s.client(ctx, m.hook)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, m.hook.URL, bytes.NewReader(m.body))
	if err != nil {
		return errors.New("the URL of the webhook is none")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "sallyport")
	request.Header.Set(HeaderDelivery, m.delivery)
	request.Header.Set(HeaderSignature, Sign(secret, time.Now(), m.body))
	response, err := client.Transport.RoundTrip(request) // which follows no redirect
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
	if response.StatusCode/100 != 2 {
		return &refusal{response.StatusCode}
	}
	return nil
}

// client verifies the endpoint's certificate; no proxy of the environment is used.
func (s *Sender) client(ctx context.Context, hook v1alpha1.Webhook) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if hook.CA != nil {
		bundle, err := s.files.ReadFile(ctx, hook.CA.File)
		if err != nil {
			return nil, fmt.Errorf("certificate authority of the webhook: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(bundle) {
			return nil, fmt.Errorf("certificate authority of the webhook: %s holds no certificate", hook.CA.File)
		}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}, nil
}

// Sign is the value of HeaderSignature for a body that is sent at a time.
func Sign(secret []byte, at time.Time, body []byte) string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(seconds + "."))
	mac.Write(body)
	return "t=" + seconds + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
