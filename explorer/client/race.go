package client

import (
	"context"
	"sync"
	"time"
)

// reply is how one service answered in a race.
type reply[T any] struct {
	at     int
	value  T
	next   bool // this one has not served, another one may
	cancel context.CancelFunc
	err    error
}

// race asks the services in turn, from the current one on, until one has served.
// One that fails gives way to the next at once; one that is silent is not given up,
// for it may only be slow, but after a moment the next is asked beside it. ask says
// whether another service may do better; drop gets what came too late. The context
// of the one that has served goes on until the returned function is called, which
// is never nil; those of all others end before race returns.
func race[T any](ctx context.Context, c *Client, ask func(context.Context, *Conn) (value T, next bool, err error), drop func(T)) (value T, done context.CancelFunc, err error) {
	var (
		begin   = int(c.current.Load())
		begun   = make([]context.CancelFunc, len(c.conns)) // by service; nil: not asked, or over
		asked   = 0
		open    = 0
		replies = make(chan reply[T])
		over    = make(chan struct{})
		all     sync.WaitGroup
		failed  []error
	)
	next := func() {
		at := (begin + asked) % len(c.conns)
		asked++
		open++
		ctx, cancel := context.WithCancel(ctx)
		begun[at] = cancel
		all.Go(func() {
			r := reply[T]{at: at, cancel: cancel}
			r.value, r.next, r.err = ask(ctx, c.conns[at])
			select {
			case replies <- r:
			case <-over:
				if r.err == nil {
					drop(r.value)
				}
			}
		})
	}
	defer all.Wait()
	defer func() {
		for _, cancel := range begun {
			if cancel != nil {
				cancel()
			}
		}
	}()
	defer close(over)
	silent := time.NewTicker(min(switchAfter, c.opts.Timeout))
	defer silent.Stop()
	next()
	for {
		select {
		case <-silent.C:
			if asked < len(c.conns) && ctx.Err() == nil {
				next()
			}
		case r := <-replies:
			open--
			begun[r.at] = nil
			if !r.next {
				if !OutcomeUnknown(r.err) {
					c.current.Store(uint32(r.at))
				}
				return r.value, r.cancel, r.err
			}
			r.cancel()
			failed = append(failed, r.err)
			switch {
			case asked < len(c.conns) && ctx.Err() == nil:
				next()
				silent.Reset(min(switchAfter, c.opts.Timeout))
			case open > 0:
			case len(failed) == 1:
				return value, func() {}, failed[0]
			default:
				return value, func() {}, together(failed)
			}
		}
	}
}
