package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"lifetrace.dev/examples/orders/truth"
)

// leak is the way in which the service misbehaves: once per order.
type leak string

const (
	leakNone      leak = "none"
	leakAfterFunc leak = "afterfunc"
	leakTicker    leak = "ticker"
	leakHTTPBody  leak = "httpbody"
	leakCtx       leak = "ctx"
	leakTimeout   leak = "timeout"
)

func (l *leak) String() string {
	if *l == "" {
		return string(leakNone)
	}
	return string(*l)
}

// Set is for the flag.
func (l *leak) Set(text string) error {
	switch leak(text) {
	case leakNone, leakAfterFunc, leakTicker, leakHTTPBody, leakCtx, leakTimeout:
		*l = leak(text)
		return nil
	}
	return fmt.Errorf("unknown leak")
}

// leaks does beside each order what real services do, reminders, session limits, payment, fraud checks: rightly, or, for the one
// chosen, as it once went wrong.
type leaks struct {
	kind leak

	armed    atomic.Int64 // reminders that will fire
	reminded chan int64   // nobody reads it any more

	answers chan bool // of the fraud check that never comes

	asked, found atomic.Int64 // stock that is looked up

	payments *payments
}

func newLeaks(kind leak) (*leaks, error) {
	l := &leaks{kind: kind, reminded: make(chan int64), answers: make(chan bool)}
	if kind == leakHTTPBody {
		var err error
		if l.payments, err = startPayments(); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *leaks) before(ctx context.Context, order Order) {
	switch l.kind {
	case leakAfterFunc:
		l.remind(order)
	case leakTicker:
		l.openSession()
	case leakHTTPBody:
		l.payments.pay(order)
	case leakCtx:
		l.checkFraud(ctx)
	case leakTimeout:
		l.checkStock()
	}
}

const reminderDelay = 20 * time.Millisecond

var reminders truth.Site

// remind arms a reminder that sends the order's id to a channel whose reader was removed in some refactoring: each one that fires
// is a goroutine for ever. Its creator is the runtime's time.goFunc; only its start function leads here.
func (l *leaks) remind(order Order) {
	l.armed.Add(1)
	time.AfterFunc(reminderDelay, func() {
		reminder := reminders.Fired()
		defer reminder.Exit()
		l.reminded <- order.ID
	})
}

// openSession gives the customer's session a rate limiter and forgets to stop it.
func (l *leaks) openSession() {
	newLimiter(1)
}

var fraudChecks truth.Site

// checkFraud starts a worker, waits for it a moment, gives up and cancels it. The worker does not listen.
func (l *leaks) checkFraud(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	verdict := make(chan bool, 1)
	check := fraudChecks.NextLine()
	go l.askFraudService(ctx, verdict, check)
	select {
	case <-verdict:
	case <-ctx.Done():
	}
}

// askFraudService should select on ctx.Done() too.
func (l *leaks) askFraudService(_ context.Context, verdict chan<- bool, self *truth.Site) {
	defer self.Exit()
	verdict <- <-l.answers
}

var stockChecks truth.Site

// checkStock gives up when the warehouse takes too long. The answer comes all the same, and nobody has the channel any more.
func (l *leaks) checkStock() {
	l.asked.Add(1)
	stock := make(chan int)
	check := stockChecks.NextLine()
	go l.askWarehouse(stock, check)
	select {
	case <-stock:
	case <-time.After(time.Millisecond):
	}
}

func (l *leaks) askWarehouse(stock chan<- int, self *truth.Site) {
	defer self.Exit()
	time.Sleep(20 * time.Millisecond)
	l.found.Add(1)
	stock <- 1
}

// close waits until everything that will leak has leaked, so that the truth is exact.
func (l *leaks) close() {
	for reminders.Made() < l.armed.Load() || l.found.Load() < l.asked.Load() {
		time.Sleep(time.Millisecond)
	}
	if l.payments != nil {
		l.payments.close()
	}
}
