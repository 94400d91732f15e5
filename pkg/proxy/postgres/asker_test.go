package postgres

import (
	"errors"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
)

// nobodyAsks is an asker for sessions in which nothing is held.
type nobodyAsks struct{}

func (nobodyAsks) Holds() bool { return false }
func (nobodyAsks) Question(*policy.Approval, proxy.Operation) approval.Request {
	return approval.Request{}
}
func (nobodyAsks) Ask(*policy.Approval, approval.Request) (*approval.Ticket, error) {
	return nil, errors.New("nobody is there")
}
func (nobodyAsks) Replaced() <-chan struct{} { return nil }
