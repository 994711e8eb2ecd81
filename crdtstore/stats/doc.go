// Package stats is what a store sums up of its grid: counts of nodes and VMs, capacity, how
// far the masters agree, and what the records take on disk. Store.Stats returns it.
package stats
