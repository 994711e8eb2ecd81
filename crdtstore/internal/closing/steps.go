package closing

import (
	"fmt"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
)

const (
	// step is what a step has at the least when the time for closing is over.
	step = 200 * time.Millisecond
	// slowCall is how long a call to the disk has to take for the disk to be the reason
	// why closing does not end.
	slowCall = 500 * time.Millisecond
	// hungCall is how long a call takes that nobody waits for any more who closes.
	hungCall = 3 * time.Second
)

// Steps are the steps of closing, one after the other.
type Steps struct {
	Began  time.Time
	Within time.Duration        // how long all of them wait for a disk that is slow or hangs
	Busy   func() time.Duration // how long the call to the disk takes that takes longest
}

// Do runs a part of closing. It returns before that has ended, with ErrUnavailable of
// package replica, where the disk lets it wait for too long; the part goes on by itself, for
// it cannot be stopped.
func (s Steps) Do(what string, part func() error) error {
	done := make(chan error, 1)
	go func() { done <- part() }()
	tick := time.NewTicker(step / 4)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case err := <-done:
			return err
		case now := <-tick.C:
			busy := s.Busy()
			if now.Sub(began) > step && (busy > hungCall || busy > slowCall && now.Sub(s.Began) > s.Within) {
				return fmt.Errorf("%w: the disk did not let it %s; what was acknowledged is on it", replica.ErrUnavailable, what)
			}
		}
	}
}
