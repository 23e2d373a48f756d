// Package truth counts the goroutines a program makes, at the place where it makes them, so that what a tracer says about the
// program can be checked against what the program knows.
//
// A counted go statement looks like this:
//
//	work := placing.NextLine() // the go statement must stand on the very next line
//	go func() {
//		defer work.Exit()
//		…
//	}()
//
// Who waits for such goroutines must be told after Exit: `defer group.Done()` stands above `defer work.Exit()`.
//
// The statement stays at its own place in its own function, so the creator and the line that the Go runtime records are
// those reported here: the function that holds the statement and the line of its `go`.
//
// A closure handed to time.AfterFunc is started by the runtime's own `go` statement, in time.goFunc. Such goroutines are counted
// from inside, by Fired; the site is the one the runtime names, and "via" says how it came about.
package truth

import (
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Place is where a go statement stands, as the runtime names it.
type Place struct {
	Function string `json:"function"`
	File     string `json:"file,omitempty"` // base name; empty if the statement is in a library
	Line     int    `json:"line,omitempty"`
	Via      string `json:"via,omitempty"` // the library call behind it: "time.AfterFunc", "net/http"
}

// Count is a place and how many goroutines belong to it.
type Count struct {
	Place
	Count int64 `json:"count"`
}

// Report is the program's own truth.
type Report struct {
	Pid   int     `json:"pid"`
	Made  []Count `json:"made"`
	Alive []Count `json:"alive"`
	// Settled is false if goroutines that should have ended were still there when the program gave up waiting for them.
	Settled bool `json:"settled"`
}

// Site counts the goroutines of one go statement. The zero Site is ready; it may be used by several goroutines.
type Site struct {
	once  sync.Once
	place Place
	made  atomic.Int64
	gone  atomic.Int64
}

var (
	mu    sync.Mutex
	sites []*Site
)

// NextLine counts a goroutine that the go statement on the next line is about to make.
func (s *Site) NextLine() *Site {
	s.once.Do(func() {
		s.register(caller())
	})
	s.made.Add(1)
	return s
}

// Fired counts the calling goroutine, a closure started by time.AfterFunc. It is called first thing in the closure.
func (s *Site) Fired() *Site {
	s.once.Do(func() {
		place := creator()
		place.Via = "time.AfterFunc"
		s.register(place)
	})
	s.made.Add(1)
	return s
}

// Library counts n goroutines that a library call has started and that are known to stay. The library's line is its own affair.
func (s *Site) Library(function, via string, n int64) {
	s.once.Do(func() { s.register(Place{Function: function, Via: via}) })
	s.made.Add(n)
}

// Exit says that the calling goroutine is about to end.
func (s *Site) Exit() { s.gone.Add(1) }

// Alive is how many of the site's goroutines have not ended.
func (s *Site) Alive() int64 { return s.made.Load() - s.gone.Load() }

// Made is how many goroutines the site has made.
func (s *Site) Made() int64 { return s.made.Load() }

func (s *Site) register(place Place) {
	s.place = place
	mu.Lock()
	defer mu.Unlock()
	sites = append(sites, s)
}

// Settle waits until the runtime counts no more goroutines than `others` and those alive at the sites, and reports.
func Settle(others int, patience time.Duration) Report {
	end := time.Now().Add(patience)
	for int64(runtime.NumGoroutine()) != int64(others)+alive() && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
	}
	return report(int64(runtime.NumGoroutine()) == int64(others)+alive())
}

func alive() (n int64) {
	mu.Lock()
	defer mu.Unlock()
	for _, s := range sites {
		n += s.Alive()
	}
	return n
}

// report adds up the sites of one place, and sorts by file and line.
func report(settled bool) Report {
	mu.Lock()
	defer mu.Unlock()
	made, alive := map[Place]int64{}, map[Place]int64{}
	for _, s := range sites {
		made[s.place] += s.Made()
		alive[s.place] += s.Alive()
	}
	return Report{Pid: os.Getpid(), Made: counts(made), Alive: counts(alive), Settled: settled}
}

func counts(by map[Place]int64) []Count {
	list := []Count{}
	for place, n := range by {
		if n != 0 {
			list = append(list, Count{place, n})
		}
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if a.File != b.File {
			return a.File < b.File
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Function < b.Function
	})
	return list
}

// caller is the line after the one that called NextLine, which is found by its name: sync.Once stands between.
func caller() Place {
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "truth.(*Site).NextLine") {
			frame, _ = frames.Next()
			return Place{Function: frame.Function, File: filepath.Base(frame.File), Line: frame.Line + 1}
		}
		if !more {
			return Place{Function: "unknown"}
		}
	}
}

// creator is what the runtime prints as the creator of the calling goroutine:
//
//	created by time.goFunc in goroutine 1      (the goroutine may be missing)
//		/path/to/go/src/time/sleep.go:215 +0x2d
func creator() Place {
	buf := make([]byte, 16<<10)
	text := string(buf[:runtime.Stack(buf, false)])
	at := strings.LastIndex(text, "created by ")
	if at < 0 {
		return Place{Function: "unknown"}
	}
	lines := strings.SplitN(text[at+len("created by "):], "\n", 3)
	function, _, _ := strings.Cut(lines[0], " in goroutine ")
	place := Place{Function: function}
	if len(lines) > 1 {
		position, _, _ := strings.Cut(strings.TrimSpace(lines[1]), " ")
		file, line, _ := strings.Cut(position, ".go:")
		place.File = filepath.Base(file) + ".go"
		place.Line, _ = strconv.Atoi(line)
	}
	return place
}
