package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// metricsRetry is how often a proxy that replaces another one tries to take the address of the metrics.
	metricsRetry = 50 * time.Millisecond
	// scrapeTimeout is how long requests under way may take when the address is given up.
	scrapeTimeout = time.Second
)

// serveMetrics serves on an address until the returned function is called. With wait the address may be another proxy's, and is
// taken when that gives it up.
func serveMetrics(address string, wait bool, registry *prometheus.Registry, ready func() (string, error), log *zap.Logger) (stop func(), err error) {
	listener, err := net.Listen("tcp", address)
	taken := errors.Is(err, unix.EADDRINUSE)
	if err != nil && !(wait && taken) {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		words, err := ready()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, words)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if listener == nil {
			log.Info("metrics wait for the proxy before to give up the address", zap.String("address", address))
			if listener = listenWhenFree(ctx, address); listener == nil {
				return
			}
			log.Info("metrics are served", zap.String("address", address))
		}
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics", zap.Error(err))
		}
	}()
	return func() {
		cancel()
		finish, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
		defer cancel()
		// The address is free at once; a scrape under way is finished.
		if server.Shutdown(finish) != nil {
			_ = server.Close()
		}
		<-done
	}, nil
}

// listenWhenFree is nil when ctx ends first.
func listenWhenFree(ctx context.Context, address string) net.Listener {
	ticker := time.NewTicker(metricsRetry)
	defer ticker.Stop()
	for {
		if listener, err := net.Listen("tcp", address); err == nil {
			return listener
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}
