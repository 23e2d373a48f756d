// Responsebody asks a service over HTTP. On an answer other than 200 it returns an error without closing the body, so the connection is
// neither used again nor closed, and its two goroutines (readLoop and writeLoop, which net/http.(*Transport).dialConn starts) block in
// their selects.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"

	"lifetrace.dev/tests/leakset/remote"
	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	served := 0
	url := "http://" + remote.Listen(func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			conn.Close()
			return
		}
		status := "200 OK"
		if served%2 == 0 {
			status = "503 Service Unavailable"
		} else {
			defer conn.Close()
		}
		served++
		fmt.Fprintf(conn, "HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", status)
	})
	failed := 0
	workload.Run(func(i int) {
		if i%2 != 0 {
			return
		}
		if _, err := get(url); err != nil {
			failed++
		}
	})
}

func get(url string) (string, error) {
	response, err := http.Get(url) // leak
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the service says %s", response.Status)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}
