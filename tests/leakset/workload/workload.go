// Package workload is the frame of every program of the set. It makes operations at a steady pace for a given time, says how many
// goroutines there are then, lets the process live a little longer, and ends it without tidying up.
package workload

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

// Rand is seeded by -seed. It is for the operations alone: they are made by one goroutine.
var Rand *rand.Rand

var (
	duration = flag.Duration("for", 8*time.Second, "how long operations are made")
	every    = flag.Duration("every", 20*time.Millisecond, "the time from one operation to the next")
	linger   = flag.Duration("linger", time.Second, "how long the process lives after the last operation")
	seed     = flag.Int64("seed", 1, "the seed of what is random")
	endings  []func()
)

// Run makes operations until the time is over, and ends the process. They are numbered from 0, and made by the goroutine that calls
// Run. An operation that is late is not made up for: the next one comes a whole period after it.
func Run(operation func(i int)) {
	flag.Parse()
	if *every <= 0 {
		Fail("-every is %v", *every)
	}
	Rand = rand.New(rand.NewSource(*seed))
	operations := 0
	start := time.Now()
	for next := start; time.Since(start) < *duration; operations++ {
		operation(operations)
		next = next.Add(*every)
		if wait := time.Until(next); wait > 0 {
			time.Sleep(wait)
		} else {
			next = time.Now()
		}
	}
	say(operations)
	if path := os.Getenv("LEAKSET_PROFILE"); path != "" {
		profile(path)
	}
	for _, end := range endings {
		end()
	}
	time.Sleep(*linger)
	os.Exit(0)
}

// AtEnd has something done after the last operation, when the goroutines have been counted.
func AtEnd(end func()) {
	endings = append(endings, end)
}

// Fail ends the process: something is wrong with it that has nothing to do with what it stands for.
func Fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}

// profile writes what Go's own collector proves to be leaked: as text, whose first line has the number.
func profile(path string) {
	leaked := pprof.Lookup("goroutineleak")
	if leaked == nil {
		Fail("this Go has no goroutineleak profile")
	}
	file, err := os.Create(path)
	if err == nil {
		err = leaked.WriteTo(file, 1)
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		Fail("%v", err)
	}
}

func say(operations int) {
	line, err := json.Marshal(struct {
		PID        int `json:"pid"`
		Operations int `json:"operations"`
		Goroutines int `json:"goroutines"`
	}{os.Getpid(), operations, runtime.NumGoroutine()})
	if err != nil {
		Fail("%v", err)
	}
	fmt.Println(string(line))
}
