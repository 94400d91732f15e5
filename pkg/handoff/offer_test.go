package handoff

import (
	"context"
	"net"
	"testing"
	"time"
)

// dial is a proxy that has dialled and not yet started to listen.
func (s *seam) dial() *Client {
	s.t.Helper()
	client, err := Dial(s.t.Context(), s.path, s.Server.log)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { client.Close() })
	return client
}

func TestOfferedListenersReachWhoAwaitsThem(t *testing.T) {
	s := newSeam(t)
	shop, other := Workload{ID: 7, Generation: 3}, Workload{ID: 8, Generation: 4}
	own := listener(t)
	go func() {
		client := s.dial()
		for _, w := range []Workload{shop, other} {
			if err := client.Offer(w, []*net.TCPListener{own, own}); err != nil {
				t.Error(err)
			}
		}
	}()
	offers := s.AwaitOffers(soon(t), []uint64{7, 8})
	if len(offers) != 2 || offers[7].Generation != 3 || len(offers[8].Listeners) != 2 {
		t.Fatalf("got %+v", offers)
	}
	adopted, err := net.FileListener(offers[7].Listeners[0])
	if err != nil || adopted.Addr().String() != own.Addr().String() {
		t.Errorf("got %v, %v: want a listener at %s", adopted, err, own.Addr())
	}
	adopted.Close()
	for _, offer := range offers {
		offer.Close()
	}
}

func TestOffersAreNotAwaitedForLong(t *testing.T) {
	s := newSeam(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if offers := s.AwaitOffers(ctx, []uint64{7}); len(offers) != 0 {
		t.Errorf("got %+v from nobody", offers)
	}
	// One that comes too late is dropped, and breaks nothing.
	client := s.dial()
	if err := client.Offer(Workload{ID: 7, Generation: 1}, []*net.TCPListener{listener(t)}); err != nil {
		t.Fatal(err)
	}
	if err := client.Leave(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return len(s.Proxies()) == 1 && s.Proxies()[0].Leaving })
}

func TestProxyThatIsThereMayFinishItsOffers(t *testing.T) {
	s := newSeam(t)
	client := s.dial()
	waitFor(t, func() bool { return len(s.Proxies()) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got := make(chan map[uint64]Offer)
	go func() { got <- s.AwaitOffers(ctx, []uint64{7, 8}) }()
	if err := client.Offer(Workload{ID: 7, Generation: 1}, []*net.TCPListener{listener(t)}); err != nil {
		t.Fatal(err)
	}
	select {
	case offers := <-got:
		t.Errorf("got %+v before the proxy had finished", offers)
	case <-time.After(50 * time.Millisecond):
	}
	if err := client.Offered(); err != nil {
		t.Fatal(err)
	}
	offers := <-got
	if len(offers) != 1 {
		t.Errorf("got %+v: want the one offer", offers)
	}
	for _, offer := range offers {
		offer.Close()
	}
}

func TestOfTwoOffersTheNewestGenerationStays(t *testing.T) {
	s := newSeam(t)
	client := s.dial()
	for _, generation := range []uint64{1, 3, 2} {
		if err := client.Offer(Workload{ID: 7, Generation: generation}, []*net.TCPListener{listener(t)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Offer(Workload{ID: 8}, []*net.TCPListener{listener(t)}); err != nil {
		t.Fatal(err)
	}
	offers := s.AwaitOffers(soon(t), []uint64{7, 8})
	if got := offers[7].Generation; got != 3 {
		t.Errorf("generation %d stays", got)
	}
	for _, offer := range offers {
		offer.Close()
	}
}

func TestProxyThatServesIsTheNewestThatIsReady(t *testing.T) {
	s := newSeam(t)
	shop := Workload{ID: 7, Generation: 1}
	s.Publish(Documents{Revision: 1}, nil)
	s.Enroll(shop, []*net.TCPListener{listener(t)})
	first := s.connect(nil)
	waitFor(t, func() bool { return s.Proxy().Ready })

	release := make(chan struct{})
	second := s.connect(func(Documents) error { <-release; return nil })
	waitFor(t, func() bool { return len(s.Proxies()) == 2 })
	if states := s.Proxies(); !states[0].Ready || states[1].Ready || states[1].Pending != 1 {
		t.Errorf("got %+v: want the second not to be ready", states)
	}
	if state := s.Proxy(); !state.Ready {
		t.Errorf("got %+v: want the first to serve", state)
	}
	close(release)
	waitFor(t, func() bool { states := s.Proxies(); return states[1].Ready })

	if err := first.Leave(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return s.Proxies()[0].Leaving })
	second.Close()
	waitFor(t, func() bool { return len(s.Proxies()) == 1 })
	if state := s.Proxy(); state.Connected {
		t.Errorf("got %+v: want none to serve", state)
	}
	// Only one that accepts is given what is new.
	s.Enroll(Workload{ID: 8, Generation: 2}, []*net.TCPListener{listener(t)})
	third := s.connect(nil)
	given := map[uint64]bool{}
	for len(given) < 2 {
		if e := third.next(); e.enroll != nil {
			given[e.enroll.ID] = true
		}
	}
	if !given[7] || !given[8] {
		t.Errorf("got %v", given)
	}
}
