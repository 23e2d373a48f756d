// Shop answers as small services do: JSON in and out, a table behind a mutex, and a pipeline of goroutines and channels behind
// each order. It is what the price of probes is measured on.
//
//	shop ADDRESS     prints "ready ADDRESS", serves until it is ended
//
//	GET  /stock            one item of the table
//	POST /order            prices an order in the pipeline
//	GET  /rate             how many requests were answered a second, of late
//	GET  /trace?seconds=N  an execution trace of so many seconds is written to the temporary folder
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"runtime/trace"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

type item struct {
	Name  string   `json:"name"`
	Price int      `json:"price"`
	Tags  []string `json:"tags"`
}

type stock struct {
	mu    sync.Mutex
	items map[int]item
	asked int
}

type job struct {
	item  item
	count int
	done  chan int
}

type shop struct {
	stock    stock
	jobs     chan job
	priced   chan job
	answered atomic.Int64
	rate     atomic.Int64
}

func newShop() *shop {
	s := &shop{jobs: make(chan job), priced: make(chan job)}
	s.stock.items = make(map[int]item)
	for n := 0; n < 1000; n++ {
		s.stock.items[n] = item{Name: fmt.Sprint("item ", n), Price: n, Tags: []string{"small", "round", "blue"}}
	}
	for n := 0; n < 4; n++ {
		go s.price()
		go s.tax()
	}
	go s.count()
	return s
}

func (s *shop) price() {
	for j := range s.jobs {
		j.item.Price *= j.count
		s.priced <- j
	}
}

func (s *shop) tax() {
	for j := range s.priced {
		j.done <- j.item.Price * 119 / 100
	}
}

func (s *shop) count() {
	before := int64(0)
	for range time.Tick(100 * time.Millisecond) {
		now := s.answered.Load()
		s.rate.Store((now - before) * 10)
		before = now
	}
}

func (s *shop) take(n int) item {
	s.stock.mu.Lock()
	defer s.stock.mu.Unlock()
	s.stock.asked++
	return s.stock.items[n%len(s.stock.items)]
}

func (s *shop) answer(w http.ResponseWriter, what any) {
	s.answered.Add(1)
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(what); err != nil {
		log.Print(err)
	}
}

func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	var wanted struct{ Item, Count int }
	if err := json.NewDecoder(r.Body).Decode(&wanted); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	found := s.take(wanted.Item)
	done := make(chan int, 1)
	// A goroutine a request, as for a call to another service.
	go func() { s.jobs <- job{found, wanted.Count, done} }()
	s.answer(w, map[string]int{"sum": <-done})
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("shop ADDRESS")
	}
	s := newShop()
	var asked atomic.Int64
	http.HandleFunc("/stock", func(w http.ResponseWriter, r *http.Request) { s.answer(w, s.take(int(asked.Add(1)))) })
	http.HandleFunc("/order", s.order)
	http.HandleFunc("/rate", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, s.rate.Load()) })
	http.HandleFunc("/trace", func(w http.ResponseWriter, r *http.Request) {
		seconds, err := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		file, err := os.CreateTemp("", "shop-*.trace")
		if err == nil {
			err = trace.Start(file)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer file.Close()
		time.Sleep(time.Duration(seconds * float64(time.Second)))
		trace.Stop()
		fmt.Fprintln(w, file.Name())
	})
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready", listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}
