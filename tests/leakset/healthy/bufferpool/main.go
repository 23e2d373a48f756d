// Bufferpool starts a goroutine for every request, which takes its buffer from a sync.Pool and puts it back. Goroutines come fast, and
// go as fast: each ends within a few milliseconds.
package main

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func main() {
	workload.Run(func(i int) {
		for request := 0; request < 5; request++ {
			go render(i + request)
		}
	})
}

func render(page int) int {
	buffer := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buffer)
	buffer.Reset()
	fmt.Fprintf(buffer, "<p>%d</p>", page)
	time.Sleep(time.Duration(page%4) * time.Millisecond)
	return buffer.Len()
}
