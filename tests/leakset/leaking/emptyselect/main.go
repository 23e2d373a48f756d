// Emptyselect loads plug-ins. Each is set up in a goroutine of its own, which then stays in an empty select, so that what it has opened
// remains open. Nothing ends it when the plug-in is unloaded, so every load leaves one behind.
package main

import (
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

type registry struct {
	mu     sync.Mutex
	loaded map[string]int
}

func (r *registry) load(name string, version int) {
	set := make(chan struct{})
	go func() { // leak
		r.mu.Lock()
		r.loaded[name] = version
		r.mu.Unlock()
		close(set)
		select {}
	}()
	<-set
}

func (r *registry) unload(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.loaded, name)
}

func main() {
	r := &registry{loaded: make(map[string]int)}
	workload.Run(func(i int) {
		if i%4 == 0 {
			r.unload("filter")
			r.load("filter", i)
		}
	})
}
