//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// mute has a host lose what it sends to another one, which it still hears.
func (h *netns) mute(to *netns) {
	h.net.t.Helper()
	h.net.ip("-n", h.name, "route", "add", "blackhole", to.ip)
}

// unmute ends what mute began.
func (h *netns) unmute(to *netns) {
	h.net.t.Helper()
	h.net.ip("-n", h.name, "route", "del", "blackhole", to.ip)
}

// Four masters go through splits of every shape while nodes report to all of them and
// operators speak to each. Nobody is called offline who is heard, whoever can reach a
// master by way of another one does, and after each split all have all that any of them
// has acknowledged.
func TestSplits(t *testing.T) {
	g := newGrid(t)
	w := newNetwork(t, 5, "")
	hosts, home := w.hosts[:4], w.hosts[4]
	var masters []*master
	for i, name := range []string{"a", "b", "c", "d"} {
		var peers []string
		for j := range hosts {
			if j != i {
				peers = append(peers, hosts[j].ip)
			}
		}
		masters = append(masters, g.startMaster(name, masterOptions{
			in: hosts[i], peers: peers, args: []string{"--heartbeat-interval", "1s", "--offline-after", "4s"},
		}))
	}
	eventually(t, 20*time.Second, func() error { return meshed(masters...) })
	var agents []string
	for i := range 4 {
		agents = append(agents, fmt.Sprint("node-", i))
		g.startAgent(agents[i], agentOptions{in: home}, masters...)
	}
	online := func() error {
		var err error
		for _, m := range masters {
			err = errors.Join(err, onlineAt(m, agents...))
		}
		return err
	}
	eventually(t, 20*time.Second, online)

	known := newAcknowledged()
	quit := make(chan struct{})
	var writers sync.WaitGroup
	for _, m := range masters {
		writers.Go(func() { known.write(quit, m.endpoint, "by-"+m.name, 20*time.Millisecond) })
	}
	defer writers.Wait()
	stop := sync.OnceFunc(func() { close(quit) })
	defer stop()

	// live lets time pass in which every node is online everywhere.
	live := func(d time.Duration) {
		t.Helper()
		for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(250 * time.Millisecond) {
			if err := online(); err != nil {
				t.Fatalf("a node is not online that every master hears: %v", err)
			}
		}
	}
	// reaches checks that what is said through a master is known to others.
	reaches := func(from *master, to ...*master) {
		t.Helper()
		word := fmt.Sprint(time.Now().UnixNano())
		from.must(t, "label_node", obj{"node_id": agents[0], "labels": obj{"said-on-" + from.name: word}}, nil)
		eventually(t, 10*time.Second, func() error {
			for _, m := range to {
				if got := m.mustNodes()[agents[0]].Labels["said-on-"+from.name]; got != word {
					return errNotYet("%s has the label %q, and %s was told %q", m.name, got, from.name, word)
				}
			}
			return nil
		})
	}
	// apart waits until a master says that it cannot reach these others, and only these.
	apart := func(m *master, others ...string) {
		t.Helper()
		eventually(t, 25*time.Second, func() error {
			var s gridStats
			m.must(t, "stats", nil, &s)
			var named []string
			for _, split := range s.Convergence.Splits {
				named = append(named, split.Name)
			}
			slices.Sort(named)
			if !slices.Equal(named, others) {
				return errNotYet("%s says that it is apart from %q, want %q", m.name, named, others)
			}
			return nil
		})
	}
	together := func(shape string) {
		t.Helper()
		healed, want := time.Now(), known.accounts()
		eventually(t, 30*time.Second, func() error {
			var err error
			for _, m := range masters {
				err = errors.Join(err, m.has(want))
			}
			return err
		})
		took := time.Since(healed)
		for _, m := range masters {
			apart(m)
		}
		live(time.Second)
		t.Logf("%s: all have what was acknowledged before it ended %v after that", shape, took.Round(10*time.Millisecond))
	}
	a, b, c, d := hosts[0], hosts[1], hosts[2], hosts[3]

	// Two masters cannot talk to each other, and the others can to both.
	a.mute(b)
	b.mute(a)
	live(6 * time.Second)
	reaches(masters[0], masters[1:]...)
	reaches(masters[1], masters[0], masters[2], masters[3])
	a.unmute(b)
	b.unmute(a)
	together("bridge")

	// What one sends to another is lost, and comes by way of a third.
	a.mute(b)
	live(6 * time.Second)
	reaches(masters[0], masters[1:]...)
	reaches(masters[1], masters[0], masters[2], masters[3])
	a.unmute(b)
	together("one way")

	// Nobody hears a, which hears the others.
	for _, other := range hosts[1:] {
		a.mute(other)
	}
	live(8 * time.Second)
	apart(masters[1], "a")
	reaches(masters[1], masters[2], masters[3])
	for _, other := range hosts[1:] {
		a.unmute(other)
	}
	together("unheard")

	// Two halves.
	between := func(do func(from, to *netns)) {
		for _, left := range []*netns{a, b} {
			for _, right := range []*netns{c, d} {
				do(left, right)
				do(right, left)
			}
		}
	}
	between((*netns).mute)
	live(8 * time.Second)
	apart(masters[0], "c", "d")
	apart(masters[3], "a", "b")
	reaches(masters[0], masters[1])
	reaches(masters[3], masters[2])
	between((*netns).unmute)
	together("halves")

	// The way to d comes and goes.
	seed := rand.Uint64()
	t.Logf("seed of the flapping link: %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 6 {
		for _, do := range []func(from, to *netns){(*netns).mute, (*netns).unmute} {
			for _, other := range hosts[:3] {
				do(d, other)
				do(other, d)
			}
			live(time.Duration(200+random.IntN(2000)) * time.Millisecond)
		}
	}
	together("flapping")

	stop()
	writers.Wait()
	t.Logf("%d writes were acknowledged", known.count())
	eventually(t, 10*time.Second, func() error { return equalRecords(masters...) })
	for _, m := range masters {
		known.standsAt(m)
	}
}
