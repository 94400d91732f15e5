// Package api is how people see and decide what is held: HTTP and JSON on connections whose persons are known. Server is the proxy's side, of
// connections that the privileged half hands over; List, Get and Decide are the commands'. docs/approvals.md describes it.
package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/localhttp"
)

// socketName is that of package capture/people in the run directory.
const socketName = "approvals.sock"

// A View is a request as a person sees it.
type View struct {
	approval.Request
	// MayDecide is true when the request is pending and the person is one of those who decide.
	MayDecide bool `json:"mayDecide"`
}

// listing is the answer to GET /v1/requests.
type listing struct {
	Requests []View `json:"requests"`
}

// verdict is the body of a POST.
type verdict struct {
	Reason string `json:"reason"`
}

// failure is the body of every answer that is not 2xx.
type failure struct {
	Error string `json:"error"`
}

// List is the requests that the caller may see: those that are pending, or all that are kept. The errors are those of localhttp.Do.
func List(ctx context.Context, runDir string, all bool) ([]View, error) {
	path := "/v1/requests"
	if all {
		path += "?state=all"
	}
	var got listing
	err := do(ctx, runDir, http.MethodGet, path, nil, &got)
	return got.Requests, err
}

// Get is one request that the caller may see.
func Get(ctx context.Context, runDir, id string) (View, error) {
	var got View
	err := do(ctx, runDir, http.MethodGet, "/v1/requests/"+url.PathEscape(id), nil, &got)
	return got, err
}

// Decide approves or denies a request, and returns it as it is then.
func Decide(ctx context.Context, runDir, id string, approve bool, reason string) (View, error) {
	action := "deny"
	if approve {
		action = "approve"
	}
	var got View
	err := do(ctx, runDir, http.MethodPost, fmt.Sprintf("/v1/requests/%s/%s", url.PathEscape(id), action), verdict{Reason: reason}, &got)
	return got, err
}

func do(ctx context.Context, runDir, method, path string, body, into any) error {
	return localhttp.Do(ctx, filepath.Join(runDir, socketName), method, path, body, into)
}
