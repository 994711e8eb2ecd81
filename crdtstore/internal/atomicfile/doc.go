// Package atomicfile replaces small files as a whole, and tells those that a newer
// program has written.
package atomicfile
