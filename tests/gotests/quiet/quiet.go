// Package quiet starts nothing.
package quiet

// Double of a number.
func Double(n int) int { return 2 * n }
