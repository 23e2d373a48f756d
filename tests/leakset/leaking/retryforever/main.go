// Retryforever registers each worker with an agent that is not there, in the background, and tries again for ever. The worker is gone
// soon after, and nothing tells the goroutine: it sleeps, tries, fails and sleeps again.
package main

import (
	"net"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const agent = "@lifetrace-leakset-no-such-agent"

func main() {
	workload.Run(func(i int) {
		if i%4 == 0 {
			go register(i) // leak
		}
	})
}

func register(worker int) {
	for wait := 50 * time.Millisecond; ; {
		conn, err := net.Dial("unix", agent)
		if err == nil {
			conn.Write([]byte{byte(worker)})
			conn.Close()
			return
		}
		time.Sleep(wait)
		if wait < 500*time.Millisecond {
			wait *= 2
		}
	}
}
