// Stream is a price service with streams as gRPC has them: the server sends, one message at a time, until the client has had enough.
// A send that was begun when the client left waits for a reader for ever.
package main

import (
	"context"
	"log"
	"sync"

	"lifetrace.dev/examples/incidents/pace"
	"lifetrace.dev/examples/incidents/truth"
)

// enough is how many prices a client wants to see.
const enough = 3

// follow is a client: it opens a stream, looks at a few prices, and leaves.
func follow(server *Server, item string) {
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	prices := server.Watch(ctx, item)
	for i := 0; i < enough; i++ {
		prices.Recv()
	}
}

func main() {
	p := pace.Parse("clients", 80, 25)
	server := &Server{mended: p.Healthy}
	var clients sync.WaitGroup
	p.Each(func() {
		clients.Add(1)
		go func() {
			defer clients.Done()
			follow(server, "tea")
		}()
	})
	clients.Wait()
	log.Printf("%d clients served", p.N)
	truth.Tell(p.Left(1))
}
