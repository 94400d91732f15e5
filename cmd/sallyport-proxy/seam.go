package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
)

// redialEvery is how often the proxy looks for a capture that is gone.
const redialEvery = 200 * time.Millisecond

// A seam keeps the connection to sallyport-capture: it dials again whenever the connection breaks. Without it the proxy goes on
// with what it has; only files can not be read.
type seam struct {
	path string
	log  *zap.Logger

	mu     sync.Mutex
	client *handoff.Client
}

// run serves p until ctx ends.
func (s *seam) run(ctx context.Context, p *proxy.Proxy) {
	told := false
	for ctx.Err() == nil {
		client, err := handoff.Dial(ctx, s.path, s.log)
		if err == nil {
			s.set(client)
			told = false
			err = client.Run(ctx, p)
			s.set(nil)
			p.CaptureStatus(handoff.CaptureStatus{Reason: "capture is not connected"})
		}
		if err != nil && ctx.Err() == nil && !told {
			s.log.Warn("capture is gone, dialling again", zap.Error(err))
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(redialEvery):
		}
	}
}

func (s *seam) set(c *handoff.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = c
}

// ReadFile implements proxy.Files.
func (s *seam) ReadFile(ctx context.Context, path string) ([]byte, error) {
	s.mu.Lock()
	c := s.client
	s.mu.Unlock()
	if c == nil {
		return nil, errors.New("capture, which reads files, is not connected")
	}
	return c.ReadFile(ctx, path)
}
