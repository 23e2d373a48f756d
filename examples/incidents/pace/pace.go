// Package pace is how much of an incident happens, and how fast: the flags that every incident has.
package pace

import (
	"flag"
	"log"
	"time"
)

// Pace is how much and how fast.
type Pace struct {
	N       int
	Rate    int
	Healthy bool
}

// Parse reads the command line. What happens N times is named for its help: "sessions".
func Parse(what string, n, rate int) Pace {
	log.SetFlags(0)
	var p Pace
	flag.IntVar(&p.N, "n", n, what)
	flag.IntVar(&p.Rate, "rate", rate, what+" a second")
	flag.BoolVar(&p.Healthy, "healthy", false, "the program as it was mended: nothing is left")
	flag.Parse()
	switch {
	case flag.NArg() > 0:
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	case p.N < 0:
		log.Fatalf("-n %d: not negative", p.N)
	case p.Rate < 1 || p.Rate > 10_000:
		log.Fatalf("-rate %d: 1 to 10000", p.Rate)
	}
	return p
}

// Each does something N times, evenly spread.
func (p Pace) Each(do func()) {
	ticker := time.NewTicker(time.Second / time.Duration(p.Rate))
	defer ticker.Stop()
	for i := 0; i < p.N; i++ {
		do()
		<-ticker.C
	}
}

// Left is how many goroutines are left in the end, if each time leaves so many: none if healthy.
func (p Pace) Left(each int) int {
	if p.Healthy {
		return 0
	}
	return p.N * each
}
