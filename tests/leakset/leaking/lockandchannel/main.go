// Lockandchannel stops a watcher: it takes the lock and waits for the watcher's loop to end. The loop has one update left, for which it
// needs the lock. Each waits for the other, one in a receive and one in a mutex. The shape is that of etcd pull request 6873, as
// gathered in GoBench (Yuan et al., CGO 2021).
package main

import (
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type watcher struct {
	mu      sync.Mutex
	updates chan int
	done    chan struct{}
	last    int
}

func watch() *watcher {
	w := &watcher{updates: make(chan int, 1), done: make(chan struct{})}
	go w.loop() // leak
	return w
}

func (w *watcher) loop() {
	defer close(w.done)
	for update := range w.updates {
		// The update is decoded.
		time.Sleep(10 * time.Millisecond)
		w.mu.Lock()
		w.last = update
		w.mu.Unlock()
	}
}

func (w *watcher) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.updates)
	<-w.done
}

func main() {
	workload.Run(func(i int) {
		w := watch()
		if i%4 == 0 {
			w.updates <- i
		}
		go w.stop() // leak
	})
}
