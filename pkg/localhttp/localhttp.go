// Package localhttp asks an HTTP server on a Unix socket, in JSON both ways: how the commands for people speak with the agent.
package localhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
)

// ErrNobody says that nobody serves the socket.
var ErrNobody = errors.New("nobody answers")

// maxAnswerBytes bounds what is read of an answer.
const maxAnswerBytes = 64 << 20

// A Refusal is an answer other than success, with the server's own words.
type Refusal struct {
	// Status is HTTP's.
	Status  int    `json:"-"`
	Message string `json:"error"`
}

// Error is the server's words.
func (r *Refusal) Error() string { return r.Message }

// Do sends one request over a connection of its own, with body as JSON, and decodes the answer into what into points to, unless that is nil.
// The error is ErrNobody where nobody listens, and a *Refusal where the server said no.
func Do(ctx context.Context, socket, method, path string, body, into any) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", socket)
		},
	}
	defer transport.CloseIdleConnections()
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(encoded))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	response, err := transport.RoundTrip(request)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w at %s", ErrNobody, socket)
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w", socket, err)
	}
	defer response.Body.Close()
	decoder := json.NewDecoder(io.LimitReader(response.Body, maxAnswerBytes))
	switch {
	case response.StatusCode/100 != 2:
		refusal := &Refusal{Status: response.StatusCode}
		if err := decoder.Decode(refusal); err != nil || refusal.Message == "" {
			refusal.Message = response.Status
		}
		return refusal
	case into != nil:
		if err := decoder.Decode(into); err != nil {
			return fmt.Errorf("answer of %s: %w", socket, err)
		}
	}
	return nil
}
