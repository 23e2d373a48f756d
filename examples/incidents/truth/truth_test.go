package truth

import (
	"runtime"
	"testing"
	"time"
)

// Goroutines are counted at the line of their go statement.
func TestCountsByGoStatement(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	wait := func() { <-stop }
	_, _, line, _ := runtime.Caller(0)
	for i := 0; i < 3; i++ {
		go wait()
	}
	want := Leak{Place{Function: "lifetrace.dev/examples/incidents/truth.TestCountsByGoStatement", File: "truth_test.go", Line: line + 2}, 3}
	found := false
	for _, leak := range others(goroutines()) {
		found = found || leak == want
	}
	if !found {
		t.Errorf("%+v is not in %+v", want, others(goroutines()))
	}
}

// A closure of time.AfterFunc is created by the runtime's own go statement.
func TestAfterFuncIsNamed(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	fired := make(chan struct{})
	time.AfterFunc(time.Millisecond, func() { close(fired); <-stop })
	<-fired
	for _, leak := range others(goroutines()) {
		if leak.Via == "time.AfterFunc" && leak.Function == "time.goFunc" && leak.File == "sleep.go" && leak.Line > 0 {
			return
		}
	}
	t.Errorf("not in %+v", others(goroutines()))
}

// The first goroutine has no creator, and each has an id of its own.
func TestGoroutine(t *testing.T) {
	other := make(chan int)
	go func() { other <- Goroutine() }()
	if a, b := Goroutine(), <-other; a <= 0 || b <= 0 || a == b {
		t.Errorf("%d and %d", a, b)
	}
	if place, ok := creator("goroutine 1 [running]:\nmain.main()\n\t/x/main.go:7 +0x1d"); ok {
		t.Errorf("main was created at %+v", place)
	}
}
