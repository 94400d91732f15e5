package control

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

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// ErrNotRunning says that no sallyport-capture serves the run directory.
var ErrNotRunning = errors.New("sallyport-capture is not running")

// maxAnswerBytes bounds what is read of an answer.
const maxAnswerBytes = 64 << 20

// GetStatus asks for the status. The error is ErrNotRunning when nobody answers.
func GetStatus(ctx context.Context, runDir string) (Status, error) {
	var status Status
	err := do(ctx, runDir, http.MethodGet, "/status", nil, &status)
	return status, err
}

// Enroll asks for a cgroup to be captured, and returns nil when it is: from then on none of its connections to a target is
// direct. The error is ErrNotRunning when nobody answers.
func Enroll(ctx context.Context, runDir, cgroup string) error {
	return do(ctx, runDir, http.MethodPost, "/workloads", enrolRequest{Cgroup: cgroup}, nil)
}

// Reload asks for the documents to be read again, and returns nil when they are in force. The error is ErrNotRunning when
// nobody answers.
func Reload(ctx context.Context, runDir string) error {
	return do(ctx, runDir, http.MethodPost, "/reload", nil, nil)
}

// ReportSupervision tells what the supervisor has counted, for the metrics. The error is ErrNotRunning when nobody answers.
func ReportSupervision(ctx context.Context, runDir string, counts handoff.Supervision) error {
	return do(ctx, runDir, http.MethodPut, "/supervision", counts, nil)
}

// do sends one request over a connection of its own.
func do(ctx context.Context, runDir, method, path string, body, into any) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", socket(runDir))
		},
	}
	defer transport.CloseIdleConnections()
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://capture"+path, bytes.NewReader(encoded))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	response, err := transport.RoundTrip(request)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w at %s", ErrNotRunning, socket(runDir))
	}
	if err != nil {
		return fmt.Errorf("ask sallyport-capture at %s: %w", socket(runDir), err)
	}
	defer response.Body.Close()
	decoder := json.NewDecoder(io.LimitReader(response.Body, maxAnswerBytes))
	switch {
	case response.StatusCode/100 != 2:
		var f failure
		if err := decoder.Decode(&f); err != nil || f.Error == "" {
			return fmt.Errorf("sallyport-capture answers %s", response.Status)
		}
		return errors.New(f.Error)
	case into != nil:
		if err := decoder.Decode(into); err != nil {
			return fmt.Errorf("answer of sallyport-capture: %w", err)
		}
	}
	return nil
}
