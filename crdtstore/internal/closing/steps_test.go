package closing_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/closing"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
)

// A step is waited for, unless the disk is why it does not end.
func TestSteps(t *testing.T) {
	const within = 2500 * time.Millisecond
	failed := errors.New("failed")
	for name, c := range map[string]struct {
		takes, called time.Duration // the step; for how long the disk had been called when it began
		idle          bool          // the disk
		begins        time.Duration // after closing began
		ends          time.Duration
		err           error
	}{
		"a step that ends":                  {takes: time.Second, ends: time.Second},
		"one that fails":                    {takes: time.Second, ends: time.Second, err: failed},
		"the disk has nothing to do":        {takes: time.Hour, idle: true, ends: time.Hour},
		"the disk is slow":                  {takes: time.Hour, ends: within + 50*time.Millisecond, err: replica.ErrUnavailable},
		"the time for closing is over":      {takes: time.Hour, called: time.Second, begins: within, ends: 250 * time.Millisecond, err: replica.ErrUnavailable},
		"the disk has hung for long":        {takes: time.Hour, called: time.Minute, ends: 250 * time.Millisecond, err: replica.ErrUnavailable},
		"it has, and the step ends at once": {takes: 100 * time.Millisecond, called: time.Minute, ends: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				time.Sleep(c.begins)
				now := time.Now()
				steps := closing.Steps{Began: began, Within: within, Busy: func() time.Duration {
					if c.idle {
						return 0
					}
					return c.called + time.Since(now)
				}}
				err := steps.Do("end", func() error {
					time.Sleep(c.takes)
					if errors.Is(c.err, failed) {
						return failed
					}
					return nil
				})
				if took := time.Since(now); took != c.ends || !errors.Is(err, c.err) {
					t.Errorf("after %s: %v; want %s: %v", took, err, c.ends, c.err)
				}
				time.Sleep(c.takes) // the step ends, too
			})
		})
	}
}
