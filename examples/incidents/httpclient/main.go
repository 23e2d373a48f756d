// Httpclient asks a service for stock levels, with a new http.Transport for each request. A transport keeps its connection open for the
// next request, and there is none: what is left of each request is a connection, with two goroutines on the client's side and one on
// the server's.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"lifetrace.dev/examples/incidents/pace"
	"lifetrace.dev/examples/incidents/truth"
)

// shop asks for stock levels.
type shop struct {
	url    string
	client *http.Client // nil: a new one each time
}

// level asks once. The body is read and closed, as it should.
func (s *shop) level(item string) (string, error) {
	client := s.client
	if client == nil {
		client = &http.Client{Transport: &http.Transport{}}
	}
	resp, err := client.Get(s.url + "/stock?item=" + item)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	level, err := io.ReadAll(resp.Body)
	return string(level), err
}

// warehouse is the service, on the loopback interface.
type warehouse struct {
	listener net.Listener
	ended    chan struct{}
}

func open() (*warehouse, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &warehouse{listener, make(chan struct{})}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s: 12\n", r.FormValue("item"))
	})}
	go func() {
		defer close(w.ended)
		_ = server.Serve(listener)
	}()
	return w, nil
}

// close takes no more connections. Those that are open stay, until their clients close them.
func (w *warehouse) close() {
	w.listener.Close()
	<-w.ended
}

func main() {
	p := pace.Parse("requests, 60 at most", 60, 20)
	if p.N > 60 {
		log.Fatalf("-n %d: 60 at most, each keeps two descriptors", p.N)
	}
	warehouse, err := open()
	if err != nil {
		log.Fatal(err)
	}
	shop := &shop{url: "http://" + warehouse.listener.Addr().String()}
	if p.Healthy {
		shop.client = &http.Client{Transport: &http.Transport{}}
	}
	p.Each(func() {
		if _, err := shop.level("tea"); err != nil {
			log.Fatal(err)
		}
	})
	if p.Healthy {
		shop.client.CloseIdleConnections()
	}
	warehouse.close()
	log.Printf("%d requests", p.N)
	truth.Tell(p.Left(3))
}
