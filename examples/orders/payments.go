package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"lifetrace.dev/examples/orders/truth"
)

// maxUnclosed bounds the leak of -leak httpbody: each unclosed body costs two file descriptors here.
const maxUnclosed = 100

// payments is a payment provider on the loopback interface, and the client that asks it without ever closing a response's body.
type payments struct {
	listener net.Listener
	server   *http.Server
	ended    chan struct{}
	client   *http.Client
	asked    atomic.Int64
	unclosed atomic.Int64
}

var paymentServers truth.Site

func startPayments() (*payments, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &payments{listener: listener, client: &http.Client{Transport: &http.Transport{}}, ended: make(chan struct{})}
	// More than one read's worth: the client's connection cannot be reused before the body is read and closed.
	receipt := strings.Repeat("paid in full\n", 8<<10)
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, receipt) })}
	serving := paymentServers.NextLine()
	go func() {
		defer close(p.ended)
		defer serving.Exit()
		_ = p.server.Serve(listener)
	}()
	return p, nil
}

// pay asks the provider and looks at the status alone. Each body left open keeps a connection, with two goroutines of net/http on this
// side of it.
func (p *payments) pay(order Order) {
	if p.asked.Add(1) > maxUnclosed {
		return
	}
	resp, err := p.client.Get(fmt.Sprintf("http://%s/pay?order=%d", p.listener.Addr(), order.ID))
	if err != nil {
		log.Print(err)
		return
	}
	if resp.StatusCode == http.StatusOK {
		p.unclosed.Add(1)
	}
}

var unclosedBodies truth.Site

// close stops the provider; its connections end, the client's stay: their reader waits for somebody to read the body.
func (p *payments) close() {
	p.server.Close()
	<-p.ended
	unclosedBodies.Library("net/http.(*Transport).dialConn", "net/http", 2*p.unclosed.Load())
}
