//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var detectionNodes = flag.Int("detection.nodes", 1000, "how many nodes TestDetection has; from 10,000 on with the default interval")

// follow calls f with what a master's event stream says of nodes, until the test ends.
func (m *master) follow(ctx context.Context, f func(id, status string)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.rpc+"/events?snapshot=brief", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	kind := ""
	for in := bufio.NewReader(resp.Body); ; {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		switch name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); {
		case name == "event":
			kind = value
		case name == "data" && kind == "node":
			var n struct {
				NodeID string `json:"node_id"`
				Status string `json:"status"`
			}
			if err := json.Unmarshal([]byte(value), &n); err != nil {
				return err
			}
			f(n.NodeID, n.Status)
		}
	}
}

// Of many nodes that beat, one in a hundred dies, each at a moment of its own. Each is
// told to be offline, by each master, when --offline-after is over and soon after that,
// and none that lives is. How soon is logged.
func TestDetection(t *testing.T) {
	interval, offlineAfter := time.Second, 4*time.Second
	if *detectionNodes >= 10_000 {
		interval, offlineAfter = 10*time.Second, 30*time.Second
	}
	g := newGrid(t)
	a, b := g.twoMasters("--heartbeat-interval", interval.String(), "--offline-after", offlineAfter.String())
	masters := []*master{a, b}
	eventually(t, 15*time.Second, func() error { return meshed(a, b) })

	ids := make([]string, *detectionNodes)
	began := time.Now()
	var registering sync.WaitGroup
	for w := range 32 {
		registering.Go(func() {
			for i := w; i < len(ids); i += 32 {
				ids[i] = fmt.Sprintf("node-%06d", i)
				if err := masters[i%2].call("register_node", obj{"node_id": ids[i], "boot": 1, "seq": 1, "hostname": ids[i]}, nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	registering.Wait()
	t.Logf("%d nodes were registered in %v", len(ids), time.Since(began).Round(time.Millisecond))

	// Every node beats at both masters. So many beat together, at one of so many phases.
	const phases = 20
	var mu sync.Mutex
	last := make([]time.Time, len(ids)) // when the node's last beat was sent
	dead := make([]bool, len(ids))
	seq := uint64(1)
	quit := make(chan struct{})
	var beating sync.WaitGroup
	beat := func(phase int) {
		var beats []obj
		mu.Lock()
		seq++
		for i := phase; i < len(ids); i += phases {
			if !dead[i] {
				last[i] = time.Now()
				beats = append(beats, obj{"node_id": ids[i], "boot": 1, "seq": seq})
			}
		}
		mu.Unlock()
		var both sync.WaitGroup
		for _, m := range masters {
			both.Go(func() {
				for batch := range slices.Chunk(beats, 1000) {
					if err := m.call("node_heartbeats", obj{"beats": batch}, nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
		both.Wait()
	}
	beating.Go(func() {
		tick := time.NewTicker(interval / phases)
		defer tick.Stop()
		for phase := 0; ; phase = (phase + 1) % phases {
			select {
			case <-quit:
				return
			case <-tick.C:
				beat(phase)
			}
		}
	})
	defer beating.Wait()
	defer close(quit)

	online := func() error {
		mu.Lock()
		beaten := !slices.ContainsFunc(last, time.Time.IsZero)
		mu.Unlock()
		if !beaten {
			return errNotYet("not all have beaten")
		}
		for _, m := range masters {
			var s gridStats
			if err := m.call("stats", nil, &s); err != nil {
				return err
			}
			if s.Nodes.Online != len(ids) {
				return errNotYet("%s says %+v", m.name, s.Nodes)
			}
		}
		return nil
	}
	eventually(t, 2*time.Minute, online)

	told := make([]map[string]time.Duration, len(masters)) // by master and node
	index := map[string]int{}
	for i, id := range ids {
		index[id] = i
	}
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	for i, m := range masters {
		told[i] = map[string]time.Duration{}
		following.Go(func() {
			err := m.follow(ctx, func(id, status string) {
				mu.Lock()
				defer mu.Unlock()
				n := index[id]
				switch _, twice := told[i][id]; {
				case status != "offline" || twice:
				case !dead[n]:
					t.Errorf("%s says that %s is offline, which beat %v ago", m.name, id, time.Since(last[n]))
				default:
					told[i][id] = time.Since(last[n])
				}
			})
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	deaths := max(1, len(ids)/100)
	for range 10 { // not all at one moment
		mu.Lock()
		for range max(1, deaths/10) {
			dead[rand.IntN(len(ids))] = true
		}
		mu.Unlock()
		time.Sleep(interval / 10)
	}
	died := 0
	for _, is := range dead {
		if is {
			died++
		}
	}
	eventually(t, offlineAfter+30*time.Second, func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(told[0]) < died || len(told[1]) < died {
			return errNotYet("%d and %d of %d dead nodes were told to be offline", len(told[0]), len(told[1]), died)
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	for i, m := range masters {
		var took []time.Duration
		for id, d := range told[i] {
			if took = append(took, d); d < offlineAfter {
				t.Errorf("%s says that %s is offline %v after its last beat", m.name, id, d)
			}
		}
		slices.Sort(took)
		t.Logf("%s: %d of %d nodes died, offline after %v at p50, %v at most, of which --offline-after %v", m.name,
			len(took), len(ids), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), offlineAfter)
	}
}
