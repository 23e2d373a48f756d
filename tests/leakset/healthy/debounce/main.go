// Debounce writes a document a little after its last change: each change resets the document's timer, whose function runs in a goroutine of
// its own when nothing has changed for 60 ms. There are six documents, and a function that runs ends.
package main

import (
	"sync/atomic"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type document struct {
	timer   *time.Timer
	written atomic.Int64
}

func (d *document) change() {
	if d.timer == nil {
		d.timer = time.AfterFunc(60*time.Millisecond, d.write)
		return
	}
	d.timer.Reset(60 * time.Millisecond)
}

func (d *document) write() {
	time.Sleep(5 * time.Millisecond)
	d.written.Add(1)
}

func main() {
	var documents [6]document
	workload.Run(func(i int) {
		documents[workload.Rand.Intn(len(documents))].change()
	})
}
