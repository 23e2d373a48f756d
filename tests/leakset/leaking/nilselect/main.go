// Nilselect watches the sources that a tenant has configured. A tenant that has configured none has two nil channels, and its watcher
// blocks in a select that can never go on, instead of not being started.
package main

import "lifetrace.dev/tests/leakset/workload"

type sources struct {
	events, alerts chan int
}

func configured(tenant int) sources {
	if tenant%3 == 0 {
		return sources{}
	}
	return sources{make(chan int), make(chan int)}
}

func main() {
	workload.Run(func(i int) {
		s := configured(i)
		go watch(s) // leak
		if s.events == nil {
			return
		}
		s.events <- i
		close(s.alerts)
	})
}

func watch(s sources) {
	seen := 0
	for {
		select {
		case <-s.events:
			seen++
		case <-s.alerts:
			return
		}
	}
}
