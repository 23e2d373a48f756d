// Keepalive asks a service in rushes of up to sixteen requests, and net/http.Transport keeps the connections for the next rush: each with
// its readLoop and its writeLoop, idle for longer than the run. There are never more than the sixteen.
package main

import (
	"io"
	"net"
	"net/http"
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

const most = 16

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		workload.Fail("%v", err)
	}
	go http.Serve(listener, http.NotFoundHandler())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: most, MaxConnsPerHost: most}}
	url := "http://" + listener.Addr().String()
	workload.Run(func(i int) {
		if i%25 == 0 {
			rush(client, url, 1+workload.Rand.Intn(most))
		}
	})
}

func rush(client *http.Client, url string, requests int) {
	var group sync.WaitGroup
	group.Add(requests)
	for i := 0; i < requests; i++ {
		go func() {
			defer group.Done()
			response, err := client.Get(url)
			if err != nil {
				workload.Fail("%v", err)
			}
			defer response.Body.Close()
			io.Copy(io.Discard, response.Body)
		}()
	}
	group.Wait()
}
