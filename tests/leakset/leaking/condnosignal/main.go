// Condnosignal activates plug-ins, and callers wait on a sync.Cond until theirs is active. An activation that fails keeps the error and
// wakes nobody, so the caller waits on the condition for ever. The shape is that of moby pull request 30408, as gathered in GoBench
// (Yuan et al., CGO 2021).
package main

import (
	"errors"
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type plugin struct {
	changed *sync.Cond
	active  bool
	err     error
}

func (p *plugin) activate(err error) {
	p.changed.L.Lock()
	defer p.changed.L.Unlock()
	if err != nil {
		p.err = err
		return
	}
	p.active = true
	p.changed.Broadcast()
}

func (p *plugin) waitActive() {
	p.changed.L.Lock()
	defer p.changed.L.Unlock()
	for !p.active {
		p.changed.Wait()
	}
}

func main() {
	workload.Run(func(i int) {
		p := &plugin{changed: sync.NewCond(new(sync.Mutex))}
		go p.waitActive() // leak
		var err error
		if i%4 == 0 {
			err = errors.New("no such socket")
		}
		time.AfterFunc(10*time.Millisecond, func() { p.activate(err) })
	})
}
