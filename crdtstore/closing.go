package crdtstore

import (
	"fmt"
	"time"
)

// closeWithin is how long closing waits for a disk that is slow or hangs. What was
// acknowledged is on it; the rest is as after a crash. A variable, so that tests need not
// wait as long.
var closeWithin = 2500 * time.Millisecond

const (
	// closeStep is what a step of closing has at the least when that is over.
	closeStep = 200 * time.Millisecond
	// slowCall is how long a call to the disk has to take for the disk to be the reason
	// why closing does not end.
	slowCall = 500 * time.Millisecond
	// hungCall is how long a call takes that nobody waits for any more who closes.
	hungCall = 3 * time.Second
)

// closer bounds how long a store waits for its disk while it is closed.
type closer struct {
	began time.Time
	busy  func() time.Duration // how long the call to the disk takes that takes longest
}

// step runs a part of closing. It returns before that has ended where the disk lets it
// wait for too long; the part goes on by itself, for it cannot be stopped.
func (c closer) step(what string, part func() error) error {
	done := make(chan error, 1)
	go func() { done <- part() }()
	tick := time.NewTicker(closeStep / 4)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case err := <-done:
			return err
		case now := <-tick.C:
			busy := c.busy()
			if now.Sub(began) > closeStep && (busy > hungCall || busy > slowCall && now.Sub(c.began) > closeWithin) {
				return fmt.Errorf("%w: the disk did not let it %s; what was acknowledged is on it", ErrUnavailable, what)
			}
		}
	}
}
