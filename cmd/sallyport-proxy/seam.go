package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
)

const (
	// redialEvery is how often the proxy looks for a capture that is gone. A capture that starts waits for a second.
	redialEvery = 50 * time.Millisecond
	// absence is how long a reader of a file waits for a capture that is gone, as it is while it is upgraded.
	absence = 5 * time.Second
)

// A seam keeps the connection to sallyport-capture: it dials again whenever the connection breaks, and gives its listeners back.
// Without it the proxy goes on with what it has; only files can not be read.
type seam struct {
	path string
	log  *zap.Logger

	mu      sync.Mutex
	client  *handoff.Client
	changed chan struct{} // closed and replaced with each client that comes
	left    bool
}

func newSeam(path string, log *zap.Logger) *seam {
	return &seam{path: path, log: log, changed: make(chan struct{})}
}

// run serves p until ctx ends.
func (s *seam) run(ctx context.Context, p *proxy.Proxy) {
	told := false
	for ctx.Err() == nil {
		client, err := handoff.Dial(ctx, s.path, s.log)
		if err == nil {
			told = false
			if err = s.connected(client, p); err == nil {
				err = client.Run(ctx, p)
			}
			client.Close()
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

// connected says first what a capture that was started again must know.
func (s *seam) connected(client *handoff.Client, p *proxy.Proxy) error {
	if err := p.Offer(client.Offer); err != nil {
		return fmt.Errorf("give the listeners back: %w", err)
	}
	if err := client.Offered(); err != nil {
		return err
	}
	if s.set(client) {
		return client.Leave()
	}
	return nil
}

// set is true when the proxy has left.
func (s *seam) set(c *handoff.Client) (left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = c
	if c != nil {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	return s.left
}

// leave tells capture, now and whenever it is started again, that this proxy accepts no more.
func (s *seam) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
	if s.client == nil {
		return
	}
	if err := s.client.Leave(); err != nil {
		s.log.Warn("tell capture that this proxy leaves", zap.Error(err))
	}
}

// ReadFile implements proxy.Files. A capture that is gone may be back in a moment.
func (s *seam) ReadFile(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, absence)
	defer cancel()
	for {
		s.mu.Lock()
		client, changed := s.client, s.changed
		s.mu.Unlock()
		if client != nil {
			content, err := client.ReadFile(ctx, path)
			if !errors.Is(err, handoff.ErrBroken) {
				return content, err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("read %s: capture, which reads files, is not connected: %w", path, ctx.Err())
		}
	}
}
