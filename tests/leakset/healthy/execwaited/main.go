// Execwaited runs a command every 200 ms and takes its output. os/exec starts goroutines that copy the output and watch the context;
// they end with each command, for it is waited for.
package main

import (
	"bytes"
	"context"
	"os/exec"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	path, err := exec.LookPath("echo")
	if err != nil {
		workload.Fail("%v", err)
	}
	workload.Run(func(i int) {
		if i%10 == 0 {
			go run(path)
		}
	})
}

func run(path string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var output bytes.Buffer
	command := exec.CommandContext(ctx, path, "hello")
	command.Stdout, command.Stderr = &output, &output
	if err := command.Run(); err != nil {
		workload.Fail("%v", err)
	}
}
