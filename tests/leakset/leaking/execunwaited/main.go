// Execunwaited starts a command for every fifth event and never waits for it. The command ends at once and remains as a zombie, and the
// goroutine that os/exec.(*Cmd).Start starts to watch the context blocks in a select: Wait would have taken its word. The zombies go
// when the process does.
package main

import (
	"context"
	"os/exec"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	path, err := exec.LookPath("true")
	if err != nil {
		workload.Fail("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	workload.Run(func(i int) {
		if i%5 == 0 {
			notify(ctx, path)
		}
	})
}

func notify(ctx context.Context, path string) {
	command := exec.CommandContext(ctx, path)
	err := command.Start() // leak
	if err != nil {
		workload.Fail("%v", err)
	}
}
