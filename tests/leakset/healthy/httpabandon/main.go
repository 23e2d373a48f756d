// Httpabandon is an HTTP service whose clients often give up before the answer. The handler looks at the request's context, and the worker
// sends into a buffer, so nothing remains of an abandoned request but the work, which ends a little later.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func handle(w http.ResponseWriter, r *http.Request) {
	result := make(chan int, 1)
	go func() {
		time.Sleep(200 * time.Millisecond)
		result <- 1
	}()
	select {
	case value := <-result:
		fmt.Fprintln(w, value)
	case <-r.Context().Done():
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		workload.Fail("%v", err)
	}
	go http.Serve(listener, http.HandlerFunc(handle))
	patient, hasty := client(time.Second), client(50*time.Millisecond)
	url := "http://" + listener.Addr().String()
	workload.Run(func(i int) {
		switch i % 4 {
		case 0:
			go ask(hasty, url)
		case 2:
			go ask(patient, url)
		}
	})
}

func client(patience time.Duration) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
}

func ask(client *http.Client, url string) {
	response, err := client.Get(url)
	if err != nil {
		return
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
}
