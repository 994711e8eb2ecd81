package workeragent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// triesPerCall is how many addresses of a master one call tries, so that each
	// gets a fair share of its time.
	triesPerCall = 3

	// wrongFor is for how long an address is left alone that led to somebody else.
	wrongFor = 10 * time.Minute
)

// route calls one master at any of the addresses that others told of it. It asks
// each who it is before it uses it: addresses get old, and a master may say what
// it likes of another. Like every caller it is used by one goroutine at a time.
type route struct {
	master  string
	reach   func() []string // the addresses of the moment
	open    func(addr string) (*target, error)
	targets []*target
	at      int // the one in use
}

// target is one address of a master.
type target struct {
	addr   string
	local  bool
	proven bool      // the master has answered there
	wrong  time.Time // until when it is left alone; somebody else answered
	call   caller

	entrusted bool // the agent's token is for this address, once the master is proven
	withheld  bool // it is not for this address
	showing   bool // calls show it
}

func (r *route) Call(ctx context.Context, method string, params, result any) error {
	r.refresh()
	if len(r.targets) == 0 {
		return errors.New("no address of this master is known")
	}
	var failed []error
	for tries := min(len(r.targets), triesPerCall); tries > 0 && ctx.Err() == nil; tries-- {
		err := r.try(ctx, tries, method, params, result)
		if !broken(err) {
			return err
		}
		failed = append(failed, err)
		r.at = (r.at + 1) % len(r.targets)
	}
	return errors.Join(failed...)
}

// try calls the target in use, within its share of the time that is left.
func (r *route) try(ctx context.Context, tries int, method string, params, result any) error {
	t := r.targets[r.at]
	if time.Now().Before(t.wrong) {
		return fmt.Errorf("%s leads to another master than %s", t.addr, r.master)
	}
	if until, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(until)/time.Duration(tries))
		defer cancel()
	}
	if !t.proven {
		id, err := t.whoIs(ctx)
		if err != nil {
			// As text: what somebody unknown answers is no answer of the master.
			return fmt.Errorf("asking who is at %s: %v", t.addr, err) //nolint:errorlint // see above
		}
		if id != r.master {
			return r.wrongMaster(id)
		}
		t.proven, t.showing = true, t.entrusted
	}
	err := t.call.Call(ctx, method, params, result)
	if broken(err) && t.entrusted {
		t.proven = false // whoever comes next to this address does not get the token at once
	}
	return err
}

// wrongMaster notes that another master answered at the address in use.
func (r *route) wrongMaster(id string) error {
	if len(r.targets) == 0 {
		return fmt.Errorf("the master %q answers, not %s", clip(id), r.master)
	}
	t := r.targets[r.at]
	t.proven, t.wrong = false, time.Now().Add(wrongFor)
	return fmt.Errorf("%s leads to the master %q, not to %s", t.addr, clip(id), r.master)
}

// refresh takes the addresses of the moment, and stays with the one in use where
// it is still among them.
func (r *route) refresh() {
	addrs := r.reach()
	if slices.EqualFunc(r.targets, addrs, func(t *target, addr string) bool { return t.addr == addr }) {
		return
	}
	current, old := r.address(), map[string]*target{}
	for _, t := range r.targets {
		old[t.addr] = t
	}
	r.targets, r.at = nil, 0
	for _, addr := range addrs {
		t, err := old[addr], error(nil)
		if t == nil {
			t, err = r.open(addr)
		}
		if err != nil {
			continue
		}
		delete(old, addr)
		if addr == current {
			r.at = len(r.targets)
		}
		r.targets = append(r.targets, t)
	}
	for _, t := range old {
		t.call.Close()
	}
}

// address is the one in use; empty before the first call.
func (r *route) address() string {
	if len(r.targets) == 0 {
		return ""
	}
	return r.targets[r.at].addr
}

// local reports whether the address in use is on this machine.
func (r *route) local() bool { return len(r.targets) > 0 && r.targets[r.at].local }

func (r *route) Close() {
	for _, t := range r.targets {
		t.call.Close()
	}
}
