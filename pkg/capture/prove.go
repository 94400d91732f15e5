package capture

import (
	"context"
	"time"

	"go.uber.org/zap"
)

const (
	// proofInterval is how often the kernel is asked about every workload, and the canary dials.
	proofInterval = time.Minute
	// proofRetry is when they are after the first failure: what passes must not count for longer than it lasts.
	proofRetry = 250 * time.Millisecond
)

// KeepProving runs Check and Prove again and again until ctx ends, and calls a function after each time. After a failure the
// next time comes soon, and then less and less soon. Whether capture is effective, and why not, is logged when it changes.
func (c *Capture) KeepProving(ctx context.Context, after func()) { KeepProving(ctx, c, c.log, after) }

// A Prover is a way of capturing that can be asked whether it is effective.
type Prover interface {
	Check() Status
	Prove(ctx context.Context) error
	Status() Status
}

// KeepProving is Capture's, for any way of capturing.
func KeepProving(ctx context.Context, c Prover, log *zap.Logger, after func()) {
	logged, failures := "", 0
	for {
		c.Check()
		// What it finds is in the status.
		_ = c.Prove(ctx)
		if ctx.Err() != nil {
			return
		}
		status := c.Status()
		if status.Reason != logged {
			if logged = status.Reason; status.Effective {
				log.Info("capture is effective again")
			} else {
				log.Error("capture is not effective", zap.String("reason", status.Reason))
			}
		}
		if failures++; status.Effective {
			failures = 0
		}
		after()
		select {
		case <-ctx.Done():
			return
		case <-time.After(untilProof(failures)):
		}
	}
}

// untilProof is when to prove again after so many failures in a row.
func untilProof(failures int) time.Duration {
	if failures == 0 {
		return proofInterval
	}
	// Beyond 20 doublings there are no more bits.
	return min(proofRetry<<min(failures-1, 20), proofInterval)
}
