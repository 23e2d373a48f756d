// Lease holds a lease that must be renewed every 50 ms, and says of each renewal how late it was. Beside it the same program makes
// snapshots of its state: a checksum, then a write. One of the two can be done in a way that renewals suffer from:
//
//	lease -cause gc      the checksum is one long call in which a goroutine cannot be stopped. The collector, which wants to stop the
//	                     world meanwhile, has to wait for its end, and so has everyone
//	lease -cause lock    the write holds the lock that renewals need. No collection is going on
//	lease -cause none    neither
//
// The last line of its output is JSON: the renewals that were late, and when.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"lifetrace.dev/examples/incidents/truth"
)

var started = time.Now()

type options struct {
	cause cause
	n     int
	every time.Duration
	late  time.Duration
	state int
}

// report is the program's own truth.
type report struct {
	Pid       int    `json:"pid"`
	Cause     string `json:"cause"`
	StartedNs int64  `json:"started_unix_ns"`
	Goroutine int    `json:"goroutine"` // who renews
	EveryNs   int64  `json:"every_ns"`
	Renewals  int    `json:"renewals"`
	Late      []late `json:"late"`
	Cycles    uint32 `json:"gc_cycles"` // while the lease was held
}

func main() {
	log.SetFlags(0)
	opts := parse()
	// With fewer, the long call and a collection that waits for it, without a pause, would hold up everyone as well.
	if runtime.GOMAXPROCS(0) < 4 {
		runtime.GOMAXPROCS(4)
	}

	lease := &lease{}
	snapshots := newSnapshots(opts.cause, opts.state<<20, lease)
	before := cycles()
	stop, ended := make(chan struct{}), make(chan struct{})
	go snapshots.make(stop, ended)
	go snapshots.trim(stop, ended)

	renewer := &renewer{lease: lease, every: opts.every, tolerated: opts.late}
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		renewer.renew(opts.n)
	}()
	<-renewed
	report := report{
		Pid: os.Getpid(), Cause: string(opts.cause), StartedNs: started.UnixNano(), Goroutine: renewer.goroutine,
		EveryNs: int64(opts.every), Renewals: renewer.renewals, Late: renewer.late, Cycles: cycles() - before,
	}
	close(stop)
	<-ended
	<-ended
	log.Printf("%d renewals, %d of them late, %d snapshots", report.Renewals, len(report.Late), snapshots.made)
	truth.Print(report)
}

func parse() options {
	opts := options{cause: causeGC}
	flag.Var(&opts.cause, "cause", "of late renewals: gc, lock or none")
	healthy := flag.Bool("healthy", false, "the program as it was mended: -cause none")
	flag.IntVar(&opts.n, "n", 60, "renewals that fall due")
	flag.DurationVar(&opts.every, "every", 50*time.Millisecond, "the time from one renewal to the next")
	flag.DurationVar(&opts.late, "late", 20*time.Millisecond, "what is late")
	flag.IntVar(&opts.state, "state", 64, "the state's size in MiB")
	flag.Parse()
	if *healthy {
		opts.cause = causeNone
	}
	if flag.NArg() > 0 || opts.n < 1 || opts.every <= 0 || opts.state < 1 {
		flag.Usage()
		os.Exit(2)
	}
	return opts
}

// cycles is how many collections have been finished.
func cycles() uint32 {
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	return uint32(stats.NumGC)
}

// cause is why renewals are late.
type cause string

const (
	causeGC   cause = "gc"
	causeLock cause = "lock"
	causeNone cause = "none"
)

func (c *cause) String() string { return string(*c) }

// Set is for the flag.
func (c *cause) Set(text string) error {
	switch cause(text) {
	case causeGC, causeLock, causeNone:
		*c = cause(text)
		return nil
	}
	return fmt.Errorf("unknown cause")
}
