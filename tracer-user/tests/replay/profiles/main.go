// Wrote the profiles of this folder, with Go 1.27.3 and -trimpath.
//
// MemProfileRate 1: every allocation counts.
package main

import (
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"
)

func init() { runtime.MemProfileRate = 1 }

var orders, sessions [][]byte

//go:noinline
func takeOrder() { orders = append(orders, make([]byte, 100_000)) }

//go:noinline
func openSession() { sessions = append(sessions, make([]byte, 8192)) }

func write(name, file string) {
	runtime.GC()
	f, err := os.Create(file)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if err := pprof.Lookup(name).WriteTo(f, 0); err != nil {
		panic(err)
	}
}

func main() {
	runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(1)
	orders = make([][]byte, 0, 100)
	sessions = make([][]byte, 0, 100)
	for range 10 {
		takeOrder()
		openSession()
	}
	write("heap", "heap-first.pb.gz")
	for range 20 {
		takeOrder()
	}
	sessions = nil
	var mu sync.Mutex
	done := make(chan bool)
	mu.Lock()
	go func() { mu.Lock(); mu.Unlock(); done <- true }()
	time.Sleep(10 * time.Millisecond)
	mu.Unlock()
	<-done
	write("heap", "heap-last.pb.gz")
	write("mutex", "mutex.pb.gz")
	write("block", "block.pb.gz")
	if pprof.Lookup("goroutineleak") != nil {
		go func() { <-make(chan int) }()
		time.Sleep(10 * time.Millisecond)
		write("goroutineleak", "goroutineleak.pb.gz")
	}
	runtime.KeepAlive(orders)
}
