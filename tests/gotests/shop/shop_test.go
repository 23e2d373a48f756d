package shop

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"testing"
)

func TestClosed(t *testing.T) {
	s := Open()
	s.Order(1)
	s.Close()
}

func TestForgotten(t *testing.T) {
	Open().Order(1)
}

func TestTable(t *testing.T) {
	for _, name := range []string{"closed well", "left open", "left open", "closed"} {
		t.Run(name, func(t *testing.T) {
			s := Open()
			s.Order(1)
			if strings.HasPrefix(name, "closed") {
				s.Close()
			}
		})
	}
}

func TestParallel(t *testing.T) {
	for _, name := range []string{"a", "b", "c"} {
		name := name
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Open()
			s.Order(1)
			t.Run("inner", func(t *testing.T) {
				if name == "b" {
					// Made by a goroutine that this test made.
					made := make(chan *Shop)
					go func() { made <- Open() }()
					(<-made).Order(2)
				}
			})
			s.Close()
		})
	}
}

// Serves all tests.
var server *httptest.Server

func TestMain(m *testing.M) {
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	os.Exit(m.Run())
}

// A connection that is kept for the next request, and the process's own loop over signals, are no leaks.
func TestLibraries(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	defer signal.Stop(signals)
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
}
