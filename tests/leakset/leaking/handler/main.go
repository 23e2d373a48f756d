// Handler is an HTTP service whose handlers wait for a worker's answer, and do not look at the request's context. The worker drops every
// fourth job without a word: the client gives up after a while, and the handler's goroutine, which net/http.(*Server).Serve started,
// blocks in the receive for ever.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type job struct {
	number int
	answer chan int
}

type service struct{ jobs chan job }

func (s service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var number int
	fmt.Sscanf(r.URL.Path, "/%d", &number)
	j := job{number, make(chan int)}
	s.jobs <- j
	fmt.Fprintln(w, <-j.answer)
}

func (s service) work() {
	for j := range s.jobs {
		if j.number%4 != 0 {
			j.answer <- j.number * j.number
		}
	}
}

func serve(listener net.Listener, handler http.Handler) {
	server := http.Server{Handler: handler}
	err := server.Serve(listener) // leak
	workload.Fail("%v", err)
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		workload.Fail("%v", err)
	}
	s := service{make(chan job)}
	go s.work()
	go serve(listener, s)
	client := &http.Client{Timeout: 100 * time.Millisecond}
	workload.Run(func(i int) {
		go ask(client, fmt.Sprintf("http://%s/%d", listener.Addr(), i))
	})
}

// ask ends at the latest when the client's patience does.
func ask(client *http.Client, url string) {
	response, err := client.Get(url)
	if err != nil {
		return
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
}
