// Package truth says what a program has left behind, so that what a tracer says about the program can be checked against it.
//
// It costs the program nothing while it works: places and counts come from the runtime's own list of goroutines, read once at the
// end. How many there should be the program says itself.
package truth

import (
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Place is where a go statement stands, as the runtime names it.
type Place struct {
	Function string `json:"function"`
	File     string `json:"file"` // base name
	Line     int    `json:"line"`
	Via      string `json:"via,omitempty"` // the library call behind it: "time.AfterFunc", "net/http"
}

// Leak is a go statement and how many of its goroutines are left.
type Leak struct {
	Place
	Count int `json:"count"`
}

// Report is the last line that an incident prints.
type Report struct {
	Pid    int    `json:"pid"`
	Leaked []Leak `json:"leaked"`
	// Settled is false if there were never as many as the program said, however long it was waited for.
	Settled bool `json:"settled"`
}

const (
	// patience is how long goroutines that are about to end may take.
	patience = 5 * time.Second
	// rest lets what the reading of the list held up, tickers above all, go back to where it waits.
	rest = 10 * time.Millisecond
)

// Tell waits until as many goroutines are left, besides the calling one, as the program says it leaks, and prints the report.
func Tell(leaked int) {
	end := time.Now().Add(patience)
	report := Report{Pid: os.Getpid()}
	for {
		report.Leaked = others(goroutines())
		report.Settled = count(report.Leaked) == leaked
		if report.Settled || time.Now().After(end) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	Print(report)
	// Where the machine held all of it up, all that was due meanwhile runs now.
	for began := time.Now(); ; began = time.Now() {
		time.Sleep(rest)
		if time.Since(began) < 2*rest || time.Now().After(end.Add(patience)) {
			return
		}
	}
}

// Print writes the program's last line.
func Print(line any) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		log.Fatal(err)
	}
}

// Goroutine is the calling goroutine's id.
func Goroutine() int {
	buf := make([]byte, 64)
	fields := strings.Fields(string(buf[:runtime.Stack(buf, false)]))
	id, _ := strconv.Atoi(fields[1]) // "goroutine 17 [running]:"
	return id
}

func count(leaks []Leak) (n int) {
	for _, leak := range leaks {
		n += leak.Count
	}
	return n
}

// goroutines is the text of all goroutines, the caller's first.
func goroutines() string {
	for size := 1 << 18; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return string(buf[:n])
		}
	}
}

// others counts the goroutines of a text by their creators, sorted by file and line; without main, which nobody created, and without
// that of os/signal, which is there for good from the first Notify on.
func others(text string) []Leak {
	by := map[Place]int{}
	for _, goroutine := range strings.Split(text, "\n\n") {
		place, ok := creator(goroutine)
		if ok && !strings.HasPrefix(place.Function, "os/signal.") {
			by[place]++
		}
	}
	leaks := []Leak{}
	for place, n := range by {
		leaks = append(leaks, Leak{place, n})
	}
	sort.Slice(leaks, func(i, j int) bool {
		a, b := leaks[i].Place, leaks[j].Place
		if a.File != b.File {
			return a.File < b.File
		}
		return a.Line < b.Line
	})
	return leaks
}

// creator finds in a goroutine's text who created it:
//
//	created by main.newLimiter in goroutine 1
//		/path/to/limiter.go:24 +0x8d
func creator(goroutine string) (Place, bool) {
	_, created, ok := strings.Cut(goroutine, "\ncreated by ")
	if !ok {
		return Place{}, false
	}
	first, second, _ := strings.Cut(created, "\n")
	function, _, _ := strings.Cut(first, " in goroutine ")
	position, _, _ := strings.Cut(strings.TrimSpace(second), " ")
	file, number, _ := strings.Cut(filepath.Base(position), ":")
	line, _ := strconv.Atoi(number)
	return Place{Function: function, File: file, Line: line, Via: via(function)}, true
}

// via names the library call behind a go statement that is not the program's own.
func via(function string) string {
	switch {
	case function == "time.goFunc":
		return "time.AfterFunc"
	case strings.HasPrefix(function, "net/http."):
		return "net/http"
	}
	return ""
}
