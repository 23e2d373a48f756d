// Lateplateau finds its tenants as they send their first request: one more with every fourth operation at first, until all fifty are
// known after two hundred. Each has a goroutine for as long as the process lives. It grows slowly, for long, and then no more.
package main

import (
	"lifetrace.dev/tests/leakset/workload"
)

const tenants = 50

type tenant struct{ requests chan int }

func main() {
	known := make(map[int]tenant)
	workload.Run(func(i int) {
		newest := i / 4
		if newest >= tenants {
			newest = workload.Rand.Intn(tenants)
		}
		t, met := known[newest]
		if !met {
			t = tenant{make(chan int, 4)}
			known[newest] = t
			go t.serve()
		}
		t.requests <- i
	})
}

func (t tenant) serve() {
	served := 0
	for range t.requests {
		served++
	}
}
