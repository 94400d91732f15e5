package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// settle is how long the directory of documents must be quiet before it is read: editors and tools write in several steps.
const settle = 200 * time.Millisecond

// watchDocuments reads the documents when their directory changes, on SIGHUP and when asked, and resolves names regularly,
// until ctx ends.
func (a *agent) watchDocuments(ctx context.Context, hangups <-chan os.Signal) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the documents: %w", err)
	}
	defer watcher.Close()
	if err := watcher.Add(a.options.config); err != nil {
		return fmt.Errorf("watch the documents: %w", err)
	}
	ticker := time.NewTicker(resolveInterval)
	defer ticker.Stop()
	quiet := time.NewTimer(0)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			quiet.Reset(settle)
		case err := <-watcher.Errors:
			a.log.Warn("watch the documents", zap.Error(err))
			quiet.Reset(settle)
		case <-quiet.C:
			a.reload(ctx)
		case <-hangups:
			a.log.Info("SIGHUP: reading the documents")
			a.reload(ctx)
		case done := <-a.reloads:
			done <- a.reload(ctx)
		case <-ticker.C:
			a.publish(ctx)
			// A directory that was replaced has lost its watch.
			if err := watcher.Add(a.options.config); err != nil {
				a.log.Warn("watch the documents", zap.Error(err))
			}
		}
	}
}
