// Package slow is empty but for its tests, which run with -tags slow.
package slow
