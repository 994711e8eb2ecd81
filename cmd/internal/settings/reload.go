package settings

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// Again gives a new Set, of the same settings, the values that flags gave to another one.
// Load then gives it what the environment and the config file say by now.
func (s *Set) Again(before *Set) error {
	for _, it := range before.items {
		if it.source == FromFlag {
			if err := s.flags.Set(it.Name, it.value.String()); err != nil {
				return &UsageError{err}
			}
		}
	}
	return nil
}

// Changed returns the names of the settings that have another value in a Set of the same
// settings, but for those in except.
func (s *Set) Changed(now *Set, except ...string) (names []string) {
	for i, it := range s.items {
		if it.value.String() != now.items[i].value.String() && !slices.Contains(except, it.Name) {
			names = append(names, it.Name)
		}
	}
	return names
}

// OnHangup calls reload for each SIGHUP, which does not end the program from then on, one
// call after the other. It begins with those that came while ready was not closed yet,
// and stops when ctx ends.
func OnHangup(ctx context.Context, ready <-chan struct{}, reload func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		// Not before the process ends: nothing is worse than to die of a late one and to
		// leave a socket behind.
		select {
		case <-ready:
		case <-ctx.Done():
			return
		}
		for {
			select {
			case <-hangup:
				reload()
			case <-ctx.Done():
				return
			}
		}
	}()
}
