// Waitinloop restores the plug-ins of a tenant in parallel, but waits for all of them within the loop that starts them: with two of
// them, the second is never started and the wait never ends. The shape is that of moby pull request 25384, as gathered in GoBench (Yuan
// et al., CGO 2021).
package main

import (
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

type plugin struct{ restored bool }

func main() {
	workload.Run(func(i int) {
		plugins := make([]plugin, 1)
		if i%4 == 0 {
			plugins = make([]plugin, 2)
		}
		go restore(plugins) // leak
	})
}

func restore(plugins []plugin) {
	var group sync.WaitGroup
	group.Add(len(plugins))
	for i := range plugins {
		go func(p *plugin) {
			defer group.Done()
			p.restored = true
		}(&plugins[i])
		group.Wait()
	}
}
