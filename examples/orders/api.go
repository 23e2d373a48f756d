package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"lifetrace.dev/examples/orders/truth"
)

// api serves orders over HTTP, and net/http/pprof:
//
//	POST /orders        {"customer":"…","item":"tea","quantity":1}
//	GET  /orders?id=1
//	GET  /sold
//	GET  /debug/pprof/
type api struct {
	service *Service
	server  *http.Server
	ended   chan struct{}
}

var servers truth.Site

func serve(addr string, service *Service) (*api, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	a := &api{service: service, ended: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/orders", a.orders)
	mux.HandleFunc("/sold", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, service.store.Sold()) })
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	a.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	serving := servers.NextLine()
	go func() {
		defer close(a.ended)
		defer serving.Exit()
		_ = a.server.Serve(listener)
	}()
	log.Printf("listening on http://%s", listener.Addr())
	return a, nil
}

func (a *api) orders(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		a.place(w, r)
	case http.MethodGet:
		a.find(w, r)
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "GET or POST", http.StatusMethodNotAllowed)
	}
}

func (a *api) place(w http.ResponseWriter, r *http.Request) {
	var order Order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&order); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	order, err := a.service.Place(r.Context(), order)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	answer(w, http.StatusCreated, order)
}

func (a *api) find(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.URL.Query().Get("id"), 10, 64)
	if err != nil {
		http.Error(w, "id must be a number", http.StatusBadRequest)
		return
	}
	order, ok := a.service.store.Get(id)
	if !ok {
		http.NotFound(w, r)
		return
	}
	answer(w, http.StatusOK, order)
}

// answer writes v as JSON. A client that has gone is no concern of ours.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// close lets requests end, for a moment.
func (a *api) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if a.server.Shutdown(ctx) != nil {
		a.server.Close()
	}
	<-a.ended
}
