package main

import (
	"context"
	"time"
)

// Exporter takes measurements.
type Exporter interface {
	Export(ctx context.Context, requests int64) error
}

// Reader measures and exports again and again.
type Reader struct {
	measure  func() int64
	exporter Exporter
	cancel   context.CancelFunc // ends run
	done     chan struct{}      // closed by run
}

// NewReader starts a reader. Who has one must shut it down.
func NewReader(measure func() int64, exporter Exporter, interval time.Duration) *Reader {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Reader{measure: measure, exporter: exporter, cancel: cancel, done: make(chan struct{})}
	go r.run(ctx, interval)
	return r
}

func (r *Reader) run(ctx context.Context, interval time.Duration) {
	defer close(r.done)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			// An export that fails is made up for by the next one.
			_ = r.exporter.Export(ctx, r.measure())
		case <-ctx.Done():
			return
		}
	}
}

// Shutdown exports a last time, and should end the reader. What it cancels is the context of that export; nobody calls r.cancel.
func (r *Reader) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return r.exporter.Export(ctx, r.measure())
}

// ShutdownMended ends the reader, waits for its goroutine, and exports a last time.
func (r *Reader) ShutdownMended(ctx context.Context) error {
	r.cancel()
	<-r.done
	return r.Shutdown(ctx)
}
