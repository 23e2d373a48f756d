package truth

import (
	"testing"
	"time"
)

// The line that NextLine reports is the line that the runtime records as the goroutine's creation.
func TestNextLineAgreesWithTheRuntime(t *testing.T) {
	var site Site
	seen := make(chan Place)
	for i := 0; i < 2; i++ {
		site.NextLine()
		go func() {
			defer site.Exit()
			seen <- creator()
		}()
		if place := <-seen; place != site.place {
			t.Errorf("counted at %+v, created at %+v", site.place, place)
		}
	}
	if site.Made() != 2 {
		t.Errorf("made %d", site.Made())
	}
}

// The same inside a function literal, and through a pointer that several places share.
func TestNextLineInAClosure(t *testing.T) {
	site := &Site{}
	seen := make(chan Place)
	func() {
		work := site.NextLine()
		go func(work *Site) { seen <- creator(); work.Exit() }(work)
	}()
	if place := <-seen; place != site.place {
		t.Errorf("counted at %+v, created at %+v", site.place, place)
	}
}

// A closure of time.AfterFunc is created by the runtime's own go statement.
func TestFiredNamesTheTimer(t *testing.T) {
	var site Site
	done := make(chan struct{})
	time.AfterFunc(time.Millisecond, func() {
		site.Fired()
		close(done)
	})
	<-done
	if site.place.Function != "time.goFunc" || site.place.File != "sleep.go" || site.place.Line == 0 {
		t.Errorf("created at %+v", site.place)
	}
}
