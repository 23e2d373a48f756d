// Crowd parks goroutines and serves net/http/pprof on a Unix socket: what `cargo xtask bench` takes snapshots of. Between GET
// /watch and GET /stall it also watches for the time to stand still, and tells the longest gap, in nanoseconds; with
// /watch?pages it asks the kernel for memory meanwhile.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

var (
	watching atomic.Bool
	stall    = make(chan time.Duration)
	start    = make(chan bool)
)

func main() {
	n := flag.Int("n", 100_000, "goroutines to park")
	socket := flag.String("socket", "", "where to serve")
	flag.Parse()
	listener, err := net.Listen("unix", *socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(2)
	}
	here, never := make(chan struct{}), make(chan struct{})
	for range *n {
		go func() {
			here <- struct{}{}
			<-never
		}()
	}
	for range *n {
		<-here
	}
	runtime.GC()
	// From here on every stop of the world is somebody's who asked for goroutines.
	debug.SetGCPercent(-1)
	go watch()
	http.HandleFunc("/watch", func(_ http.ResponseWriter, request *http.Request) {
		watching.Store(true)
		start <- request.URL.Query().Has("pages")
	})
	http.HandleFunc("/stall", func(w http.ResponseWriter, _ *http.Request) {
		watching.Store(false)
		fmt.Fprint(w, (<-stall).Nanoseconds())
	})
	fmt.Println(os.Getpid())
	http.Serve(listener, nil)
}

// watch looks at the clock all the time, ahead of everything else on the machine. It rests a tenth of the time, because the
// kernel makes those rest who do not. With pages it also has a page mapped and unmapped each half a millisecond.
func watch() {
	runtime.LockOSThread()
	ahead()
	const busy, rest, each = 9 * time.Millisecond, time.Millisecond, time.Millisecond / 2
	for pages := range start {
		longest := time.Duration(0)
		last := time.Now()
		rested, paged := last, last
		for watching.Load() {
			if pages && last.Sub(paged) > each {
				page()
				paged = last
			}
			pause := time.Duration(0)
			if last.Sub(rested) > busy {
				pause, rested = rest, last
				until := syscall.NsecToTimespec(int64(rest))
				syscall.Nanosleep(&until, nil)
			}
			now := time.Now()
			longest = max(longest, now.Sub(last)-pause)
			last = now
		}
		stall <- longest
	}
}

// ahead puts this thread before all ordinary ones (sched_setscheduler(2), SCHED_FIFO).
func ahead() {
	const fifo = 1
	priority := int32(1)
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, fifo, uintptr(unsafe.Pointer(&priority)))
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "crowd: sched_setscheduler:", errno)
	}
}

// page maps a page, writes to it and unmaps it.
func page() {
	const size = 4096
	at, _, errno := syscall.RawSyscall6(syscall.SYS_MMAP, 0, size, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_POPULATE, ^uintptr(0), 0)
	if errno == 0 {
		syscall.RawSyscall(syscall.SYS_MUNMAP, at, size, 0)
	}
}
