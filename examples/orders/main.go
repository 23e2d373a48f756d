// Orders is a small order service that can misbehave on demand, as real services have done: it is made to be watched by lifetrace.
//
//	orders -n 1000                            1,000 customers place an order each, then it prints its truth and ends
//	orders -n 1000 -leak afterfunc -for 1m    the same with a leak, and a minute to look at it
//	orders -serve :8080                       orders over HTTP, with net/http/pprof, until SIGINT or SIGTERM
//
// The last line of its output is JSON: how many goroutines each go statement of its own made, and how many are still there.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"lifetrace.dev/examples/orders/truth"
)

type options struct {
	leak    leak
	n       int
	serve   string
	stay    time.Duration
	hold    bool
	told    bool
	workers int
	rate    int
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("orders: ")
	opts, err := parse()
	if err != nil {
		log.Print(err)
		os.Exit(2)
	}
	report, err := run(opts)
	if err != nil {
		log.Print(err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

func parse() (options, error) {
	var opts options
	flag.Var(&opts.leak, "leak", "none, afterfunc, ticker, httpbody, ctx or timeout")
	flag.IntVar(&opts.n, "n", 1000, "customers, a goroutine each, who place one order: at most 500000; none with -serve unless given")
	flag.StringVar(&opts.serve, "serve", "", "serve orders and pprof on this `address` until SIGINT or SIGTERM")
	flag.DurationVar(&opts.stay, "for", 0, "how long to stay after the work")
	flag.BoolVar(&opts.hold, "hold", false, "customers stay connected until the end, all n goroutines of them")
	flag.BoolVar(&opts.told, "truth", false, "say once more, before staying, how many goroutines are there")
	flag.IntVar(&opts.workers, "workers", 8, "workers of each pipeline stage")
	flag.IntVar(&opts.rate, "rate", 0, "orders a second that are let in; 0 is no limit")
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "n" })
	if opts.serve != "" && !given {
		opts.n = 0
	}
	switch {
	case flag.NArg() > 0:
		return opts, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case opts.n < 0 || opts.n > 500_000:
		return opts, fmt.Errorf("-n %d: 0 to 500000", opts.n)
	case opts.workers < 1:
		return opts, fmt.Errorf("-workers %d: at least 1", opts.workers)
	case opts.rate < 0:
		return opts, fmt.Errorf("-rate %d: not negative", opts.rate)
	}
	return opts, nil
}

// run does the work of one life: open, place orders, stay, close, and say what is left.
func run(opts options) (truth.Report, error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	others := runtime.NumGoroutine() - 1 // main and what os/signal keeps; its watcher of ctx ends with stop

	service, err := open(opts)
	if err != nil {
		return truth.Report{}, err
	}
	var api *api
	if opts.serve != "" {
		if api, err = serve(opts.serve, service); err != nil {
			return truth.Report{}, err
		}
	}
	placed := service.placeAll(ctx, opts.n, opts.hold)
	log.Printf("%d orders placed, %d accepted", opts.n, placed)
	if opts.told { // the watcher of ctx is there still
		if err := json.NewEncoder(os.Stdout).Encode(truth.Settle(others+1, 10*time.Second)); err != nil {
			return truth.Report{}, err
		}
	}
	if api != nil {
		<-ctx.Done()
		api.close()
	} else {
		linger(ctx, opts.stay)
	}
	service.close()
	stop()
	return truth.Settle(others, 10*time.Second), nil
}

// linger waits for d, or less if the program is told to end.
func linger(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
