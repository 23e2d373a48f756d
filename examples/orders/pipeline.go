package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"lifetrace.dev/examples/orders/truth"
)

var catalogue = []struct {
	item  string
	cents int64
}{{"tea", 450}, {"coffee", 990}, {"honey", 1290}, {"bread", 380}}

var errClosed = errors.New("the service is closed")

// job is an order on its way, and where its customer waits.
type job struct {
	order Order
	err   error
	done  chan job // buffered: a customer who has gone does not hold up a worker
}

// pipeline is validate → price → store, with a pool of workers a stage, joined by channels.
type pipeline struct {
	intake chan job
	priced chan job
	closed chan struct{}
	stages [2]sync.WaitGroup
}

var validators, storers truth.Site

func startPipeline(store *Store, workers int) *pipeline {
	p := &pipeline{intake: make(chan job), priced: make(chan job, workers), closed: make(chan struct{})}
	for i := 0; i < workers; i++ {
		p.stages[0].Add(1)
		validating := validators.NextLine()
		go p.validate(validating)
	}
	for i := 0; i < workers; i++ {
		p.stages[1].Add(1)
		storing := storers.NextLine()
		go p.keep(store, storing)
	}
	return p
}

// process sends an order through and waits for the outcome.
func (p *pipeline) process(ctx context.Context, order Order) (Order, error) {
	done := make(chan job, 1)
	select {
	case p.intake <- job{order: order, done: done}:
	case <-p.closed:
		return order, errClosed
	case <-ctx.Done():
		return order, ctx.Err()
	}
	select {
	case result := <-done:
		return result.order, result.err
	case <-ctx.Done():
		return order, ctx.Err()
	}
}

// validate is the first stage: it refuses what cannot be sold and names the price of the rest.
func (p *pipeline) validate(worker *truth.Site) {
	defer p.stages[0].Done()
	defer worker.Exit()
	for {
		select {
		case j := <-p.intake:
			j.order.Cents, j.err = price(j.order)
			p.priced <- j
		case <-p.closed:
			return
		}
	}
}

func price(order Order) (int64, error) {
	if order.Quantity < 1 {
		return 0, fmt.Errorf("quantity %d", order.Quantity)
	}
	for _, entry := range catalogue {
		if entry.item == order.Item {
			return entry.cents * int64(order.Quantity), nil
		}
	}
	return 0, fmt.Errorf("no item %q", order.Item)
}

// keep is the second stage: it stores what was accepted and tells the customer.
func (p *pipeline) keep(store *Store, worker *truth.Site) {
	defer p.stages[1].Done()
	defer worker.Exit()
	for j := range p.priced {
		j.order.Status = "refused"
		if j.err == nil {
			j.order.Status = "stored"
			store.Put(j.order)
		}
		j.done <- j
	}
}

func (p *pipeline) close() {
	close(p.closed)
	p.stages[0].Wait()
	close(p.priced)
	p.stages[1].Wait()
}
