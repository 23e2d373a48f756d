// Reload is a service that takes a new configuration at each SIGUSR2: it makes a generation, with a goroutine that watches the
// configuration's file and a few workers, and hands the work over to it. The old generation gets no work any more, and goes on.
//
//	reload             signals itself, -n times
//	reload -outside    waits for -n signals of somebody else; SIGTERM ends it before
package main

import (
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"lifetrace.dev/examples/incidents/pace"
	"lifetrace.dev/examples/incidents/truth"
)

// service does jobs, by the newest configuration.
type service struct {
	mended bool
	config string // a file
	now    *generation
	old    int // generations that went before it
}

// reload hands over to a new generation.
func (s *service) reload() {
	old := s.now
	s.now = begin(s.config)
	s.old++
	if s.mended {
		old.stop()
	}
}

// serve reloads at each SIGUSR2, so many times, and does a job every now and then.
func (s *service) serve(reloads int, signals <-chan os.Signal) {
	work := time.NewTicker(5 * time.Millisecond)
	defer work.Stop()
	for s.old < reloads {
		select {
		case signal := <-signals:
			if signal == syscall.SIGTERM {
				return
			}
			s.reload()
		case <-work.C:
			s.now.do(s.old)
		}
	}
}

// pester signals the program itself, at a pace, until it is told to stop. Signals that come too fast become one.
func pester(rate int, stop <-chan struct{}) {
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := syscall.Kill(os.Getpid(), syscall.SIGUSR2); err != nil {
				log.Fatal(err)
			}
		case <-stop:
			return
		}
	}
}

func main() {
	outside := flag.Bool("outside", false, "wait for signals, send none")
	p := pace.Parse("reloads", 40, 13)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2, syscall.SIGTERM)

	s := &service{mended: p.Healthy, config: configuration()}
	defer os.Remove(s.config)
	s.now = begin(s.config)
	log.Printf("%d reloads its configuration at SIGUSR2", os.Getpid())

	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		if !*outside {
			pester(p.Rate, stop)
		}
	}()
	s.serve(p.N, signals)
	close(stop)
	<-stopped
	signal.Stop(signals)
	s.now.stop()

	log.Printf("%d reloads, %d jobs", s.old, done.Load())
	left := 0
	if !p.Healthy {
		left = s.old * (1 + workers)
	}
	truth.Tell(left)
}

// configuration is a file to watch.
func configuration() string {
	file, err := os.CreateTemp("", "reload-*.conf")
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	return file.Name()
}
