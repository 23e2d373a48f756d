// Longpoll has twelve HTTP clients that poll for news. The server answers a poll when there is some, or after 700 ms, so its handlers are
// nearly always blocked in a select; each poll ends, and a client has one at a time.
package main

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const clients = 12

type board struct {
	mu   sync.Mutex
	news chan struct{}
}

func (b *board) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.news
}

func (b *board) publish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.news)
	b.news = make(chan struct{})
}

func (b *board) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-b.next():
		io.WriteString(w, "news")
	case <-time.After(700 * time.Millisecond):
		w.WriteHeader(http.StatusNoContent)
	case <-r.Context().Done():
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		workload.Fail("%v", err)
	}
	b := &board{news: make(chan struct{})}
	go http.Serve(listener, b)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	for i := 0; i < clients; i++ {
		go follow(client, "http://"+listener.Addr().String())
	}
	workload.Run(func(int) {
		if workload.Rand.Intn(60) == 0 {
			b.publish()
		}
	})
}

func follow(client *http.Client, url string) {
	for {
		response, err := client.Get(url)
		if err != nil {
			workload.Fail("%v", err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}
