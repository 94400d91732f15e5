package handoff

import (
	"context"
	"net"
	"os"
	"time"
)

// An Offer is what a proxy gives back to a capture that was started again: its listeners of one workload. Nothing of it is
// proven. The files are the receiver's to close.
type Offer struct {
	Generation uint64
	Listeners  []*os.File
}

// Close closes the files.
func (o Offer) Close() { closeAll(o.Listeners) }

// Offer gives duplicates of a workload's listeners to capture, which may have lost its own. It is called before Run.
func (c *Client) Offer(workload Workload, listeners []*net.TCPListener) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	defer c.conn.SetWriteDeadline(time.Time{}) //nolint:errcheck // The next send tells.
	return sendListeners(c.conn, &message{Kind: kindOffer, Workload: &workload}, listeners, nil)
}

// Offered tells capture that there are no more offers.
func (c *Client) Offered() error { return send(c.conn, &message{Kind: kindOffered}) }

// Leave tells capture that this proxy accepts no more connections: it is given no more listeners, and is not the one that
// serves.
func (c *Client) Leave() error { return send(c.conn, &message{Kind: kindLeave}) }

// offersTimeout is how long a proxy that has connected may take to offer what it has.
const offersTimeout = 10 * time.Second

// AwaitOffers waits until proxies have offered listeners of all these workloads, and returns what was offered. When ctx ends it
// waits no more for proxies to come; those that are there may finish. Offers that come later are dropped.
func (s *Server) AwaitOffers(ctx context.Context, ids []uint64) map[uint64]Offer {
	complete := func() (bool, error) {
		for _, id := range ids {
			if _, ok := s.offers[id]; !ok {
				return false, nil
			}
		}
		return true, nil
	}
	finished := func() (bool, error) {
		for _, p := range s.proxies {
			if !p.offered {
				return complete()
			}
		}
		return true, nil
	}
	if s.await(ctx, complete) != nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), offersTimeout)
		defer cancel()
		// What is missing then is missing.
		_ = s.await(last, finished)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	offers := s.offers
	s.offers = nil
	return offers
}

// offered takes an offer. Of two for one workload the first of the newest generation stays.
func (s *Server) offered(m *message, files []*os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, ok := s.offers[m.Workload.ID]
	if s.offers == nil || ok && before.Generation >= m.Workload.Generation {
		closeAll(files)
		return
	}
	before.Close()
	s.offers[m.Workload.ID] = Offer{Generation: m.Workload.Generation, Listeners: files}
	s.announce()
}

// offeredAll notes that a proxy has offered all that it has.
func (s *Server) offeredAll(p *proxy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.offered = true
	s.announce()
}

// left notes that a proxy accepts no more; the newest of the others gets the workloads that it lacks.
func (s *Server) left(p *proxy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.leaving = true
	if newest := s.newest(); newest != nil {
		s.give(newest)
	}
	s.announce()
}
