// Beat does one thing many times and prints how long each took, in nanoseconds: the measured side of `cargo xtask bench`.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/trace"
	"sync"
	"syscall"
	"time"
)

func main() {
	what := flag.String("what", "life", "life: one goroutine's birth and exit; pingpong: one round trip over two channels; http: one request; sleep: nothing, for ever")
	n := flag.Int("n", 200_000, "how many times")
	cpu := flag.Bool("cpu", false, "print CPU time, not time")
	into := flag.String("trace", "", "write Go's own execution trace there")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	beats := map[string]func(int){"life": lives, "pingpong": pingPong, "http": requests, "sleep": sleep}
	beat, ok := beats[*what]
	if !ok {
		fmt.Fprintf(os.Stderr, "beat: no -what %s\n", *what)
		os.Exit(2)
	}
	if *what == "http" {
		*n /= 20 // a request takes as long as that many of the others
	}
	beat(*n / 10) // warm up: the heap, the free list of g structures, the first stacks
	if *into != "" {
		file, err := os.Create(*into)
		if err == nil {
			err = trace.Start(file)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "beat:", err)
			os.Exit(1)
		}
		defer trace.Stop()
	}
	began, used := time.Now(), cpuTime()
	beat(*n)
	took := time.Since(began)
	if *cpu {
		took = cpuTime() - used
	}
	fmt.Println(float64(took.Nanoseconds()) / float64(*n))
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fmt.Fprintln(os.Stderr, "beat:", err)
		os.Exit(1)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// sleep is for somebody who runs this file, and does nothing.
func sleep(int) {
	time.Sleep(time.Hour)
}

// lives starts n goroutines that end at once, a hundred at a time: a park for each would not be the life's own.
func lives(n int) {
	var wg sync.WaitGroup
	for done := 0; done < n; {
		batch := min(100, n-done)
		wg.Add(batch)
		for range batch {
			go wg.Done()
		}
		wg.Wait()
		done += batch
	}
}

// pingPong passes a value back and forth n times: two parks and two wakes a round trip.
func pingPong(n int) {
	ping, pong := make(chan int), make(chan int)
	go func() {
		for v := range ping {
			pong <- v
		}
		close(pong)
	}()
	for i := range n {
		ping <- i
		<-pong
	}
	close(ping)
	<-pong
}

// requests asks a server of this process n times, one after the other, over one connection.
func requests(n int) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer server.Close()
	for range n {
		response, err := http.Get(server.URL)
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "beat:", err)
			os.Exit(1)
		}
	}
}
