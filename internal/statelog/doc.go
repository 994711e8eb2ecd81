// Package statelog writes states to a log: one line when a state begins, not one for
// each time that it is seen, and one an hour while it lasts.
package statelog
