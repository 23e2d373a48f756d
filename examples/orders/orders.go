package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"lifetrace.dev/examples/orders/truth"
)

// Order is what a customer wants.
type Order struct {
	ID       int64  `json:"id"`
	Customer string `json:"customer"`
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
	Cents    int64  `json:"cents"`
	Status   string `json:"status"`
}

// Service takes orders in, at a limited rate, and sends each through the pipeline into the store.
type Service struct {
	store    *Store
	pipeline *pipeline
	limiter  *Limiter // nil: no limit
	leaks    *leaks
	nextID   atomic.Int64

	visitors sync.WaitGroup
	left     chan struct{} // closed at the end: customers who stayed leave
}

func open(opts options) (*Service, error) {
	s := &Service{store: newStore(), left: make(chan struct{})}
	var err error
	if s.leaks, err = newLeaks(opts.leak); err != nil {
		return nil, err
	}
	if opts.rate > 0 {
		s.limiter = newLimiter(opts.rate)
	}
	s.pipeline = startPipeline(s.store, opts.workers)
	return s, nil
}

// Place takes one order and waits until it is stored.
func (s *Service) Place(ctx context.Context, order Order) (Order, error) {
	if s.limiter != nil {
		if err := s.limiter.Wait(ctx); err != nil {
			return order, err
		}
	}
	order.ID = s.nextID.Add(1)
	s.leaks.before(ctx, order)
	return s.pipeline.process(ctx, order)
}

var customers truth.Site

// placeAll lets n customers place an order each, all at the same time, and says how many orders were accepted. Customers who hold
// stay until the service closes.
func (s *Service) placeAll(ctx context.Context, n int, hold bool) int64 {
	var accepted atomic.Int64
	var served sync.WaitGroup
	served.Add(n)
	for i := 0; i < n; i++ {
		order := Order{Customer: fmt.Sprintf("customer-%d", i), Item: catalogue[i%len(catalogue)].item, Quantity: 1 + i%3}
		s.visitors.Add(1)
		visit := customers.NextLine()
		go func() {
			defer s.visitors.Done()
			defer visit.Exit()
			if _, err := s.Place(ctx, order); err == nil {
				accepted.Add(1)
			}
			served.Done()
			if hold {
				<-s.left
			}
		}()
	}
	served.Wait()
	return accepted.Load()
}

// close ends what the service started, in the order in which work flows. What leaks, stays.
func (s *Service) close() {
	close(s.left)
	s.visitors.Wait()
	s.pipeline.close()
	if s.limiter != nil {
		s.limiter.Stop()
	}
	s.leaks.close()
}
