// Pipescanner gives each task a pipe to log to, and scans the other end for lines. The task's end is kept in a list of open logs and
// not closed when the task is over, so the scanner never sees the end and waits in the poller for ever.
package main

import (
	"bufio"
	"fmt"
	"os"
	"sync/atomic"

	"lifetrace.dev/tests/leakset/workload"
)

var lines atomic.Int64

func main() {
	var open []*os.File
	workload.Run(func(i int) {
		if i%4 != 0 {
			return
		}
		log, err := scanned()
		if err != nil {
			workload.Fail("%v", err)
		}
		open = append(open, log)
		fmt.Fprintf(log, "task %d\n", i)
	})
}

func scanned() (*os.File, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() { // leak
		defer reader.Close()
		for scanner := bufio.NewScanner(reader); scanner.Scan(); {
			lines.Add(1)
		}
	}()
	return writer, nil
}
