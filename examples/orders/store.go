package main

import "sync"

// Store keeps the orders in memory.
type Store struct {
	mu     sync.Mutex
	orders map[int64]Order
	sold   map[string]int // by item
}

func newStore() *Store {
	return &Store{orders: map[int64]Order{}, sold: map[string]int{}}
}

// Put keeps an order.
func (s *Store) Put(order Order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders[order.ID] = order
	s.sold[order.Item] += order.Quantity
}

// Get finds an order by its id.
func (s *Store) Get(id int64) (Order, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	order, ok := s.orders[id]
	return order, ok
}

// Sold is how many pieces of each item were sold.
func (s *Store) Sold() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	sold := make(map[string]int, len(s.sold))
	for item, n := range s.sold {
		sold[item] = n
	}
	return sold
}
