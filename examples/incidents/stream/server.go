package main

import "context"

// Price is a message of a stream.
type Price struct {
	Item  string
	Cents int
}

// Stream joins a sender and its client. There is no buffer: the sender is never ahead of the client.
type Stream struct {
	ctx      context.Context // of the client: done when it has left
	messages chan Price
	mended   bool
}

// Recv is the client's side.
func (s *Stream) Recv() Price { return <-s.messages }

// Send is the server's side. Nobody takes what is sent after the client has left.
func (s *Stream) Send(price Price) error {
	if !s.mended {
		s.messages <- price
		return nil
	}
	select {
	case s.messages <- price:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// Server sends prices.
type Server struct {
	mended bool
}

// Watch opens a stream of an item's prices. It ends when ctx does.
func (s *Server) Watch(ctx context.Context, item string) *Stream {
	stream := &Stream{ctx: ctx, messages: make(chan Price), mended: s.mended}
	go s.send(stream, item)
	return stream
}

// send goes on until a message cannot be sent.
func (s *Server) send(stream *Stream, item string) {
	for cents := 450; stream.Send(Price{item, cents}) == nil; cents++ {
	}
}
