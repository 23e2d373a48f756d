// Signalwait lets every long command write its state when SIGUSR1 comes, by a goroutine that waits for the signal. The command ends and
// does not stop the notification, so the goroutine waits in its receive for a signal that means nothing any more.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"lifetrace.dev/tests/leakset/workload"
)

type command struct{ state int }

func (c *command) run() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() { // leak
		for range signals {
			println(c.state)
		}
	}()
	c.state++
}

func main() {
	workload.Run(func(i int) {
		if i%4 == 0 {
			new(command).run()
		}
	})
}
