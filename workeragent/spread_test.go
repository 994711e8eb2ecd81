package workeragent

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// crowd is thousands of agents that report to one master.
type crowd struct {
	mu    sync.Mutex
	away  bool
	calls []time.Time // all attempts, in order
}

// spreadMaster is the connection of one of them.
type spreadMaster struct {
	*crowd
	heard   time.Time
	longest time.Duration // between two beats that were heard
}

func (m *spreadMaster) Call(_ context.Context, method string, _, result any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.calls = append(m.calls, now)
	if m.away {
		return errRefused
	}
	if method == methodBeat {
		if !m.heard.IsZero() {
			m.longest = max(m.longest, now.Sub(m.heard))
		}
		m.heard = now
	}
	*result.(*answer) = answer{Accepted: true, IntervalS: 10, OfflineAfterS: 30}
	return nil
}

func (m *spreadMaster) Close() {}

func (c *crowd) set(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
}

// take returns the attempts since it was last called.
func (c *crowd) take() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.calls
	c.calls = nil
	return out
}

// busiest is the largest number of attempts within any such time.
func busiest(calls []time.Time, within time.Duration) (most int) {
	from := 0
	for to := range calls {
		for calls[to].Sub(calls[from]) >= within {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}

// However many agents start together or wait together for a master, it meets a few
// times the calls that it is used to; all are back within an interval, and a short
// absence leaves none silent for so long that it would count as offline.
func TestNoStorm(t *testing.T) {
	const (
		agents   = 3000
		interval = 10 * time.Second
		window   = 100 * time.Millisecond
		usual    = int(agents * window / interval) // attempts in a window, on average
	)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		defer all.Wait()
		defer cancel()
		c := new(crowd)
		var members []*spreadMaster
		a := &Agent{cfg: Config{HeartbeatInterval: interval}, deps: deps{spread: rand.N[time.Duration]}}
		log := slog.New(slog.DiscardHandler)
		_, key, _ := ed25519.GenerateKey(nil)
		for range agents {
			m := &spreadMaster{crowd: c}
			members = append(members, m)
			n := newNode("n", key, 1, record.Profile{})
			n.open()
			l := newLink(n, newMembership("", fakeEdge{}, log), "a", m, interval, log)
			l.first = a.firstCall(false)
			all.Go(func() { l.run(ctx) })
		}
		check := func(what string, times float64) {
			t.Helper()
			calls := c.take()
			most := busiest(calls, window)
			t.Logf("%s: at most %d attempts in %v, usually %d", what, most, window, usual)
			if float64(most) > times*float64(usual) {
				t.Errorf("%s: %d attempts in %v, want at most %g times the usual %d", what, most, window, times, usual)
			}
		}
		time.Sleep(maxFirst)
		check("all start at once", 8) // within half an interval each registers and beats
		time.Sleep(3 * interval)
		check("afterwards", 2.6)

		for _, away := range []time.Duration{2 * time.Second, interval, 2 * time.Minute} {
			for _, m := range members {
				m.mu.Lock()
				m.longest = 0
				m.mu.Unlock()
			}
			c.set(true)
			time.Sleep(away)
			check("away for "+away.String(), 6)
			c.set(false)
			back := time.Now()
			time.Sleep(interval + time.Second)
			synctest.Wait()
			check("back after "+away.String(), 6)
			late, silent := 0, time.Duration(0)
			for _, m := range members {
				m.mu.Lock()
				silent = max(silent, m.longest)
				if m.heard.Before(back) {
					late++
				}
				m.mu.Unlock()
			}
			if late > 0 {
				t.Errorf("%d agents are not back %v after an absence of %v", late, interval, away)
			}
			if most := 30 * time.Second; away <= interval && silent > most {
				t.Errorf("an agent was silent for %v, the master for only %v", silent, away)
			}
			time.Sleep(3 * interval)
			check("soon after", 2.6)
		}
	})
}
