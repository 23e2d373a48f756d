// Quietlisteners waits for datagrams and connections on a dozen sockets that nobody ever calls, and answers on one that is. The goroutines
// of the quiet ones wait in the poller for as long as the process runs.
package main

import (
	"net"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	for i := 0; i < 6; i++ {
		go accept(listen())
		go answer(bind())
	}
	busy := bind()
	go answer(busy)
	caller, err := net.Dial("udp", busy.LocalAddr().String())
	if err != nil {
		workload.Fail("%v", err)
	}
	workload.Run(func(int) {
		// A datagram may be lost.
		caller.SetDeadline(time.Now().Add(time.Second))
		caller.Write([]byte("hello"))
		caller.Read(make([]byte, 16))
	})
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		workload.Fail("%v", err)
	}
	return listener
}

func bind() net.PacketConn {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		workload.Fail("%v", err)
	}
	return socket
}

func accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

func answer(socket net.PacketConn) {
	for buffer := make([]byte, 64); ; {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return
		}
		socket.WriteTo(buffer[:n], from)
	}
}
