package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/localhttp"
)

// ErrNotRunning says that no sallyport-capture serves the run directory.
var ErrNotRunning = errors.New("sallyport-capture is not running")

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
	err := localhttp.Do(ctx, socket(runDir), method, path, body, into)
	if errors.Is(err, localhttp.ErrNobody) {
		return fmt.Errorf("%w at %s", ErrNotRunning, socket(runDir))
	}
	return err
}
