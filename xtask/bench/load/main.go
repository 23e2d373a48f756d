// Load asks a page for a while, a given number of times a second, and says how late the answers came.
//
// Each question has its time, whatever became of the ones before: an answer that is late because the server was busy with an earlier one
// counts with all the time since then.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sort"
	"sync"
	"time"
)

func main() {
	url := flag.String("url", "", "where to post")
	body := flag.String("body", "", "what to post")
	connections := flag.Int("connections", 16, "questions that may be open at a time")
	rate := flag.Float64("rate", 1000, "questions a second")
	last := flag.Duration("for", 5*time.Second, "how long")
	flag.Parse()

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *connections}, Timeout: 10 * time.Second}
	due := make(chan time.Time, 1<<20)
	var (
		mu     sync.Mutex
		took   []time.Duration
		failed int
		all    sync.WaitGroup
	)
	ask := func() error {
		answer, err := client.Post(*url, "application/json", bytes.NewReader([]byte(*body)))
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if _, err = io.Copy(io.Discard, answer.Body); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", answer.Status)
		}
		return nil
	}
	for n := 0; n < *connections; n++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for at := range due {
				err := ask()
				since := time.Since(at)
				mu.Lock()
				took = append(took, since)
				if err != nil {
					failed++
				}
				mu.Unlock()
			}
		}()
	}
	began := time.Now()
	for n := 0; ; n++ {
		at := began.Add(time.Duration(float64(n) / *rate * float64(time.Second)))
		if at.Sub(began) > *last {
			break
		}
		time.Sleep(time.Until(at))
		due <- at
	}
	close(due)
	all.Wait()
	if len(took) == 0 {
		log.Fatal("nothing was asked")
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	of := func(share float64) int64 { return int64(took[int(share*float64(len(took)-1))]) }
	err := json.NewEncoder(os.Stdout).Encode(map[string]any{
		"a_second": float64(len(took)) / time.Since(began).Seconds(),
		"p50_ns":   of(0.5), "p99_ns": of(0.99), "failed": failed,
	})
	if err != nil {
		log.Fatal(err)
	}
}
