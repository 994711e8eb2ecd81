package workeragent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// Ids as masters have them.
const (
	idA = "12D3KooWHK4iyeq2pKpWjVYZ6uxnbVvPcjPrxhRKkYeeaCS6oxbf"
	idB = "12D3KooWCUJUMmPN3EFqRfzuzBnSiFi23C3QVJemqLEQFb8Z4yhB"
)

// fleet is masters that know each other, and the network before them.
type fleet struct {
	t  *testing.T
	mu sync.Mutex
	// masters by name; what they say of each other is their words.
	masters map[string]*fakeMaster
	// routes tells which master answers at an address: host:port, or a multiaddr.
	routes map[string]string
	// asked counts the calls at an address, by method.
	asked map[string]int
	// shown are the addresses at which a token was shown.
	shown map[string]bool
}

type fakeMaster struct {
	memberInfo              // as the others say it; ID is "id-" and the name
	down       bool         // refuses calls
	hangs      bool         // leaves calls without an answer
	mute       bool         // is not named by the others
	wary       bool         // answers nobody without a token
	extra      []memberInfo // named besides
	beats      int          // that were taken
	seen       []string     // addresses at which it was called
}

// newFleet makes masters that answer at their name, port 1.
func newFleet(t *testing.T, names ...string) *fleet {
	f := &fleet{t: t, masters: map[string]*fakeMaster{}, routes: map[string]string{}, asked: map[string]int{}, shown: map[string]bool{}}
	f.add(names...)
	return f
}

func (f *fleet) add(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		f.masters[name] = &fakeMaster{memberInfo: memberInfo{ID: "id-" + name, Name: name, Status: statusAlive, RPCURLs: []string{"http://" + name + ":1"}}}
		f.routes[name+":1"] = name
	}
}

// with changes the fleet.
func (f *fleet) with(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// beats returns which masters got heartbeats since it was last called.
func (f *fleet) beats() (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, m := range f.masters {
		if m.beats > 0 {
			names = append(names, name)
		}
		m.beats = 0
	}
	slices.Sort(names)
	return names
}

// wantBeats checks who gets heartbeats from now on.
func (f *fleet) wantBeats(within time.Duration, want ...string) {
	f.t.Helper()
	f.beats()
	f.gotBeats(within, want...)
}

// gotBeats checks who has got heartbeats since beats was last called, after a while.
func (f *fleet) gotBeats(after time.Duration, want ...string) {
	f.t.Helper()
	time.Sleep(after)
	synctest.Wait()
	if got := f.beats(); !slices.Equal(got, want) {
		f.t.Errorf("heartbeats to %v after %v, want %v", got, after, want)
	}
}

func (f *fleet) dial(ep client.Endpoint, opts client.Options) caller {
	return &fakeRoute{f, ep.Address, opts.FreshToken}
}

func (f *fleet) tunnel(addrs []string) (caller, error) {
	return &fakeRoute{f, addrs[0], nil}, nil
}

// start starts an agent in this fleet.
func (f *fleet) start(cfg Config, opts ...func(*setup)) *setup {
	f.t.Helper()
	opts = append([]func(*setup){func(s *setup) { s.deps.dial = f.dial }}, opts...)
	return startAgent(f.t, cfg, nil, opts...)
}

// list is the masters as one of them sees them. The caller holds mu.
func (f *fleet) list(self *fakeMaster) (infos []memberInfo) {
	for _, name := range slices.Sorted(maps.Keys(f.masters)) {
		m := f.masters[name]
		w := m.memberInfo
		switch {
		case m == self:
			w.Status = statusSelf
		case m.mute:
			continue
		case m.down && w.Status == statusAlive:
			w.Status = "down"
		}
		infos = append(infos, w)
	}
	return append(infos, self.extra...)
}

type fakeRoute struct {
	fleet *fleet
	addr  string
	token func() string // nil: it has none
}

func (r *fakeRoute) Call(ctx context.Context, method string, _, result any) error {
	f := r.fleet
	f.with(func() {
		if m := f.masters[f.routes[r.addr]]; m == nil || !m.hangs {
			ctx = nil
		}
	})
	if ctx != nil {
		<-ctx.Done()
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	method = strings.TrimPrefix(method, "ExplorerService.")
	f.asked[r.addr+" "+method]++
	m := f.masters[f.routes[r.addr]]
	if m == nil || m.down {
		return errRefused
	}
	token := r.token != nil && r.token() != ""
	f.shown[r.addr] = f.shown[r.addr] || token
	if m.wary && !token {
		return &jsonrpc.Error{Code: jsonrpc.CodeUnauthorized, Message: "a token is needed"}
	}
	infos := f.list(m)
	list, _ := json.Marshal(infos)
	var out any
	switch method {
	case "node_heartbeat":
		m.beats++
		fallthrough
	case "register_node":
		out = answer{Accepted: true, IntervalS: 10, OfflineAfterS: 30, Masters: list}
	case "masters":
		out = map[string]any{"self": m.ID, "masters": infos}
	}
	m.seen = append(m.seen, r.addr)
	text, err := json.Marshal(out)
	return errors.Join(err, json.Unmarshal(text, result))
}

func (r *fakeRoute) Close() {}

// states are the links of an agent, as "address state", in their order.
func states(s *setup) (out []string) {
	for _, e := range s.agent.Status().Explorers {
		text := e.Address + " " + e.State
		if e.Learned {
			text += " learned"
		}
		out = append(out, text)
	}
	return out
}

func wantStates(t *testing.T, s *setup, want ...string) {
	t.Helper()
	if got := states(s); !slices.Equal(got, want) {
		t.Errorf("links %q, want %q", got, want)
	}
}

func cached(t *testing.T, cfg Config) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(cfg.DataDir, mastersFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLearnsTheOtherMasters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b", "c")
		f.with(func() {
			f.masters["a"].extra = []memberInfo{{ID: "id-c", Name: "c", Status: "suspect", RPCURLs: []string{"http://old:1"}}}
		})
		s := f.start(testConfig(t, "a:1"))
		f.wantBeats(20*time.Second, "a", "b", "c")
		wantStates(t, s, "tcp://a:1 registered", "http://b:1 registered learned", "http://c:1 registered learned")
		if e := s.agent.Status().Explorers[1]; e.Master != "id-b" || e.Name != "b" {
			t.Errorf("status %+v", e)
		}
		if f.asked["old:1 masters"] > 0 {
			t.Error("an old account of a master is taken")
		}
		if f.asked["b:1 masters"] != 1 || f.asked["a:1 masters"] != 0 {
			t.Errorf("asked who they are: %v", f.asked)
		}

		// A new master, and one whose address has changed.
		f.add("d")
		f.with(func() {
			f.masters["b"].RPCURLs = []string{"http://b:1", "http://moved:1"}
			f.routes["moved:1"] = "b"
			delete(f.routes, "b:1")
		})
		f.wantBeats(40*time.Second, "a", "b", "c", "d")
		if e := s.agent.Status().Explorers[1]; e.Address != "http://moved:1" {
			t.Errorf("status %+v", e)
		}

		// The one that is configured is never given up, and is not needed.
		f.with(func() { f.masters["a"].down = true })
		f.wantBeats(40*time.Second, "b", "c", "d")
		wantStates(t, s, "tcp://a:1 unreachable", "http://moved:1 registered learned", "http://c:1 registered learned", "http://d:1 registered learned")
		f.with(func() { f.masters["a"].down = false })
		f.wantBeats(25*time.Second, "a", "b", "c", "d")
	})
}

// All addresses are new but one; then the agent restarts, and that one is gone too.
func TestFindsAChangedFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b", "c")
		cfg := testConfig(t, "a:1", "b:1", "c:1")
		s := f.start(cfg)
		f.wantBeats(20*time.Second, "a", "b", "c")
		if n := len(states(s)); n != 3 {
			t.Errorf("%d links to 3 masters: %q", n, states(s))
		}
		f.add("d", "e")
		f.with(func() {
			for _, name := range []string{"b", "c"} {
				f.masters[name].Status, f.masters[name].down = statusLeft, true
			}
		})
		f.wantBeats(40*time.Second, "a", "d", "e")
		_ = s.agent.Stop()

		// What is known to be another master needs no look at those first.
		f.with(func() { f.masters["a"].hangs = true })
		f.beats()
		spread := 0
		s = f.start(cfg, func(s *setup) {
			s.deps.spread = func(time.Duration) time.Duration { spread++; return 0 }
		})
		f.gotBeats(time.Second, "d", "e")
		if spread != 5 {
			t.Errorf("%d first calls are spread, want those to 3 configured and 2 remembered masters", spread)
		}
		_ = s.agent.Stop()
		f.with(func() { f.masters["a"].hangs, f.masters["a"].down = false, true })

		// The same master at a new address, which only the file knows.
		f.with(func() {
			a := f.masters["a"]
			a.down, a.RPCURLs, f.routes["a2:1"] = false, []string{"http://a2:1"}, "a"
			delete(f.routes, "a:1")
		})
		s = f.start(cfg)
		f.wantBeats(40*time.Second, "a", "d", "e")
		_ = s.agent.Stop()
		f.with(func() { f.masters["d"].down, f.masters["e"].down = true, true })
		f.start(cfg)
		f.wantBeats(30*time.Second, "a")
	})
}

// However many addresses lead to a master, it gets the heartbeats of one.
func TestTwoAddressesOfOneMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b")
		f.with(func() { f.routes["alias:1"], f.routes["far:1"] = "a", "b" })
		f.with(func() { f.masters["b"].RPCURLs = []string{"http://gone:1", "http://b:1"} })
		s := f.start(testConfig(t, "a:1", "alias:1"))
		time.Sleep(time.Minute)
		synctest.Wait()
		wantStates(t, s, "tcp://a:1 registered", "tcp://alias:1 standby", "http://b:1 registered learned")
		f.with(func() { f.masters["a"].seen = nil })
		time.Sleep(lookAgain * 2)
		synctest.Wait()
		f.with(func() {
			if n := len(f.masters["a"].seen); n > 18 {
				t.Errorf("%d calls to the master in 2 minutes", n)
			}
			if f.asked["alias:1 masters"] == 0 {
				t.Error("the address that stands by is not looked at")
			}
		})

		// The first one fails: the other takes over, and gives back.
		for range 5 {
			f.with(func() { delete(f.routes, "a:1") })
			time.Sleep(20 * time.Second)
			synctest.Wait()
			wantStates(t, s, "tcp://a:1 unreachable", "tcp://alias:1 registered", "http://b:1 registered learned")
			f.with(func() { f.routes["a:1"] = "a" })
			time.Sleep(time.Minute)
			synctest.Wait()
			wantStates(t, s, "tcp://a:1 registered", "tcp://alias:1 standby", "http://b:1 registered learned")
		}

		// It leads elsewhere: to the master that was learned, whose link stands by.
		f.with(func() { f.routes["alias:1"] = "b" })
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		wantStates(t, s, "tcp://a:1 registered", "tcp://alias:1 registered", "http://b:1 standby learned")
		f.wantBeats(30*time.Second, "a", "b")
	})
}

// Each of two agents is told of masters on "this machine".
func TestLoopbackIsThatOfWhoSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b", "c")
		f.with(func() {
			f.masters["b"].RPCURLs = []string{"http://b:1", "http://127.0.0.1:2", "http://[::1]:2", "http://localhost:2", "http://127.9.9.9:2", "http://0.0.0.0:2"}
			f.masters["c"].RPCURLs = []string{"http://127.0.0.1:3", "http://c:1"}
			f.routes["127.0.0.1:2"], f.routes["127.0.0.1:1"] = "b", "a"
			delete(f.routes, "b:1")
		})
		away := f.start(testConfig(t, "a:1"))
		f.wantBeats(time.Minute, "a", "c")
		wantStates(t, away, "tcp://a:1 registered", "http://b:1 unreachable learned", "http://c:1 registered learned")
		for addr := range f.asked {
			if strings.HasSuffix(addr, ":2") || strings.HasSuffix(addr, ":3") {
				t.Errorf("asked %s", addr)
			}
		}
		_ = away.agent.Stop()

		cfg := testConfig(t, "127.0.0.1:1", "c:1")
		here := f.start(cfg)
		f.wantBeats(time.Minute, "a", "b", "c")
		wantStates(t, here, "tcp://127.0.0.1:1 registered", "tcp://c:1 registered", "http://127.0.0.1:2 registered learned")

		// What c says, who is elsewhere, does not take back what a said.
		if text := cached(t, cfg); !strings.Contains(text, "127.9.9.9:2") {
			t.Errorf("not kept: %s", text)
		}
	})
}

// An address that leads to another master than it should is not used.
func TestAsksWhoIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b", "x")
		f.with(func() {
			f.masters["x"].mute = true // no master of this grid
			f.masters["b"].RPCURLs = []string{"http://wrong:1", "http://b:1"}
			f.routes["wrong:1"] = "x"
		})
		s := f.start(testConfig(t, "a:1"))
		f.wantBeats(5*time.Minute, "a", "b")
		if n := f.asked["wrong:1 masters"]; n != 1 {
			t.Errorf("asked %d times who is at the wrong address", n)
		}

		// Later the right one goes to somebody else as well, who is found out at the
		// first answer.
		f.with(func() { f.routes["b:1"] = "x" })
		f.wantBeats(20*time.Second, "a", "x") // the beat that finds it out
		f.wantBeats(5*time.Minute, "a")
		if e := s.agent.Status().Explorers[1]; e.State != StateUnreachable || !strings.Contains(e.LastError, "another master") {
			t.Errorf("status %+v", e)
		}

		// It is looked at again much later.
		f.with(func() { f.routes["b:1"] = "b" })
		f.wantBeats(wrongFor, "a", "b")
	})
}

func TestForgetsMastersThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b", "c", "d")
		cfg := testConfig(t, "a:1")
		s := f.start(cfg)
		f.wantBeats(30*time.Second, "a", "b", "c", "d")

		// b leaves, c is named no more, d is down but named.
		f.with(func() {
			f.masters["b"].Status, f.masters["b"].down = statusLeft, true
			f.masters["c"].mute, f.masters["c"].down = true, true
			f.masters["d"].down = true
		})
		time.Sleep(forgetAfter / 2)
		if n := len(states(s)); n != 4 {
			t.Errorf("%d links after 5 minutes, want all: %q", n, states(s))
		}
		time.Sleep(forgetAfter/2 + time.Minute)
		synctest.Wait()
		wantStates(t, s, "tcp://a:1 registered", "http://d:1 unreachable learned")
		if text := cached(t, cfg); strings.Contains(text, "id-b") || strings.Contains(text, "id-c") || !strings.Contains(text, "id-d") {
			t.Errorf("file: %s", text)
		}
		n := s.agent.running.Load().node
		n.mu.Lock()
		if len(n.links) != 2 {
			t.Errorf("%d subscriptions of 2 links", len(n.links))
		}
		n.mu.Unlock()

		// While nobody answers, the fault may be here.
		f.with(func() { f.masters["a"].down = true })
		time.Sleep(24 * time.Hour)
		f.with(func() { f.masters["d"].down = false })
		f.wantBeats(30*time.Second, "d")

		// One that answers is kept, though nobody names it but itself.
		f.with(func() { f.masters["d"].mute, f.masters["a"].down = true, false })
		time.Sleep(time.Hour)
		f.wantBeats(30*time.Second, "a", "d")

		// One that left comes back.
		f.with(func() { f.masters["b"].Status, f.masters["b"].down = statusAlive, false })
		f.wantBeats(30*time.Second, "a", "b", "d")
	})
}

func TestWhatIsLearnedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b")
		long := strings.Repeat("x", 10_000)
		round := 0
		cfg := testConfig(t, "a:1")
		s := f.start(cfg)
		f.wantBeats(30*time.Second, "a", "b")
		for range 30 {
			round++
			f.with(func() {
				extra := []memberInfo{{ID: long}, {ID: ""}, {ID: "a b"}, {ID: "evil", Name: long, Status: statusAlive, RPCURLs: []string{
					"http://" + long, "unix:///etc/x", "javascript:alert(1)", "/ip4/1.2.3.4/tcp/1/p2p/" + idA, "", "http://u:p@h"}}}
				for i := range 100 {
					w := memberInfo{ID: fmt.Sprintf("bogus-%d-%d", round, i), Status: statusAlive}
					for j := range 40 {
						w.RPCURLs = append(w.RPCURLs, fmt.Sprintf("http://bogus%d:%d", i, j+1))
					}
					extra = append(extra, w)
				}
				f.masters["a"].extra, f.masters["b"].mute = extra, true
			})
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		r := s.agent.running.Load()
		known := r.dir.masters()
		if len(known) > maxMasters || len(r.dir.links) > maxMasters+1 {
			t.Errorf("%d masters, %d links", len(known), len(r.dir.links))
		}
		for _, m := range r.dir.known {
			if len(m.id) > maxName || len(m.name) > 256 || len(m.urls) > maxAddrs || m.id == "evil" && len(m.urls) > 0 {
				t.Errorf("learned %+v", m)
			}
		}
		if text := cached(t, cfg); len(text) > maxList {
			t.Errorf("the file has %d bytes", len(text))
		}
		f.wantBeats(20*time.Second, "a", "b") // real ones are not crowded out

		// Nor a new one.
		f.add("c")
		f.with(func() { f.masters["a"].extra = f.masters["a"].extra[:maxMasters-2]; f.masters["b"].mute = false })
		f.wantBeats(time.Minute, "a", "b", "c")

		for _, junk := range []string{`{}`, `[1]`, `"x"`, `[{"id":7}]`, `[{"id":"q","rpc_urls":"x"}]`, strings.Repeat(" ", maxList+1)} {
			if infos := decodeMembers(json.RawMessage(junk)); len(infos) > 0 {
				t.Errorf("%.20s is read as %v", junk, infos)
			}
		}
	})
}

func TestEdgeAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeA, edgeB, edgeB2 := "/ip4/10.0.0.1/tcp/9005/p2p/"+idA, "/ip4/10.0.0.2/tcp/9005/p2p/"+idB, "/ip4/127.0.0.1/tcp/9005/p2p/"+idB
		f := newFleet(t, "a", "b")
		f.with(func() {
			f.masters["a"].ID, f.masters["a"].EdgeAddrs = idA, []string{edgeA}
			f.masters["b"].ID, f.masters["b"].EdgeAddrs = idB, []string{edgeA, edgeB2, edgeB, "/ip4/10.0.0.3/tcp/9005"}
			f.masters["b"].RPCURLs = []string{"http://127.0.0.1:9002"}
			f.routes[edgeA], f.routes[edgeB] = "a", "b"
		})
		up := map[string]caller{}
		s := f.start(testConfig(t, edgeA), func(s *setup) {
			s.deps.edges = fakeEdge{open: f.tunnel, up: func(id string) caller { f.mu.Lock(); defer f.mu.Unlock(); return up[id] }}
		})
		f.wantBeats(30*time.Second, "a", "b")
		wantStates(t, s, edgeA+" registered", edgeB+" registered learned")
		d := s.agent.running.Load().dir
		want := []knownMaster{{ID: idB, Name: "b", EdgeAddrs: []string{edgeB}, Well: true}, {ID: idA, Name: "a", EdgeAddrs: []string{edgeA}, Well: true}}
		if got := d.masters(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("masters %v, want %v", got, want)
		}
		select {
		case <-d.changed:
		default:
			t.Error("nobody was told of the masters")
		}
		time.Sleep(time.Minute)
		if len(d.changed) > 0 {
			t.Error("told of a change where there is none")
		}

		// A tunnel that is up is used; one that breaks does not keep the beats back.
		f.with(func() { f.routes["frames"] = "b"; up[idB] = &fakeRoute{f, "frames", nil}; clear(f.asked) })
		f.wantBeats(time.Minute, "a", "b")
		if f.asked["frames node_heartbeat"] < 5 || f.asked[edgeB+" node_heartbeat"] > 0 {
			t.Errorf("calls %v", f.asked)
		}
		f.with(func() { delete(f.routes, "frames"); clear(f.asked) })
		f.wantBeats(time.Minute, "a", "b")
		if f.asked[edgeB+" node_heartbeat"] == 0 {
			t.Errorf("calls %v", f.asked)
		}
		f.with(func() { f.masters["b"].down = true })
		time.Sleep(time.Minute)
		if got := d.masters(); got[0].Well || !got[1].Well || len(d.changed) == 0 {
			t.Errorf("masters %v", got)
		}
	})
}

func TestFileOfMasters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b")
		cfg := testConfig(t, "a:1")
		path := filepath.Join(cfg.DataDir, mastersFile)
		run := func(d time.Duration, want ...string) *setup {
			t.Helper()
			s := f.start(cfg)
			f.wantBeats(d, want...)
			_ = s.agent.Stop()
			return s
		}
		run(20*time.Second, "a", "b")
		const golden = `{
  "version": 1,
  "masters": [
    {
      "id": "id-a",
      "name": "a",
      "rpc_urls": [
        "http://a:1"
      ],
      "edge_addrs": []
    },
    {
      "id": "id-b",
      "name": "b",
      "rpc_urls": [
        "http://b:1"
      ],
      "edge_addrs": []
    }
  ],
  "leads": {
    "tcp://a:1": "id-a"
  }
}
`
		if got := cached(t, cfg); got != golden {
			t.Errorf("file: %s", got)
		}

		// It is written when something has changed, and not else.
		was, _ := os.Stat(path)
		run(10*time.Minute, "a", "b")
		if is, _ := os.Stat(path); !is.ModTime().Equal(was.ModTime()) {
			t.Error("written though nothing has changed")
		}

		f.with(func() { f.masters["a"].down = true })
		for _, broken := range []string{"", "{", "[]", `{"version":0}`, `{"version":1,"masters":7}`, strings.Repeat(" ", 3*maxList)} {
			if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
				t.Fatal(err)
			}
			s := run(20 * time.Second)
			if n := len(s.log.lines("will be made anew")); n != 1 {
				t.Errorf("%d warnings of the file %.20q", n, broken)
			}
		}
		f.with(func() { f.masters["a"].down = false })
		run(20*time.Second, "a", "b")
		if got := cached(t, cfg); got != golden {
			t.Errorf("not mended: %s", got)
		}

		newer := strings.Replace(golden, `"version": 1`, `"version": 2`, 1)
		if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
			t.Fatal(err)
		}
		s := run(20*time.Second, "a", "b")
		if n := len(s.log.lines("newer version")); n != 1 || cached(t, cfg) != newer {
			t.Errorf("%d warnings, and the file of a newer version is now %s", n, cached(t, cfg))
		}
		f.with(func() { f.masters["a"].down = true })
		run(20 * time.Second)

		// Of a file that somebody wrote only what would be learned is taken.
		f.with(func() { f.masters["a"].down = false; f.masters["b"].mute = true })
		odd := `{"version":1,"masters":[{"id":""},{"id":"id-b","rpc_urls":["unix:///b","http://127.0.0.1:1"]}],"leads":{"tcp://a:1":"","x":"y"}}`
		if err := os.WriteFile(path, []byte(odd), 0o600); err != nil {
			t.Fatal(err)
		}
		if s = run(20*time.Second, "a"); len(states(s)) != 1 {
			t.Errorf("links %q", states(s))
		}

		// A disk that takes nothing is told once, and costs nothing else.
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		f.with(func() { f.masters["b"].mute = false })
		s = f.start(cfg)
		f.wantBeats(5*time.Minute, "a", "b")
		if n := len(s.log.lines("cannot be saved")); n != 1 {
			t.Errorf("%d warnings of a disk that takes nothing: %q", n, s.log.lines("WARN"))
		}
		if leftovers, _ := filepath.Glob(path + ".*"); len(leftovers) > 0 {
			t.Errorf("left behind: %v", leftovers)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * saveEvery)
		synctest.Wait()
		if got := cached(t, cfg); got != golden {
			t.Errorf("file: %s", got)
		}
	})
}

// An address of which it is not known yet where it leads may lead to a master that
// was learned: that is found out first.
func TestWaitsForConfiguredAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b")
		f.with(func() { f.routes["alias:1"] = "b" })
		slow := true
		s := f.start(testConfig(t, "a:1", "alias:1"), func(s *setup) {
			s.deps.spread = func(d time.Duration) time.Duration {
				slow = !slow
				if slow {
					return d
				}
				return 0
			}
		})
		f.gotBeats(time.Minute, "a", "b")
		wantStates(t, s, "tcp://a:1 registered", "tcp://alias:1 registered")
	})
}

// An address of a master that does not answer, or that refuses the agent, does not
// keep it from the next.
func TestOneGoodAddressIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b")
		f.with(func() {
			f.masters["b"].RPCURLs = []string{"http://hung:1", "http://closed:1", "http://b:1"}
			f.routes["hung:1"] = "hung"
			f.masters["hung"] = &fakeMaster{hangs: true, mute: true}
		})
		f.start(testConfig(t, "a:1"), func(s *setup) {
			s.deps.dial = func(ep client.Endpoint, o client.Options) caller {
				if ep.Address == "closed:1" {
					return explorerThat(t, func(call) (any, error) {
						return nil, &jsonrpc.Error{Code: jsonrpc.CodeUnauthorized, Message: "no"}
					})
				}
				return f.dial(ep, o)
			}
		})
		f.gotBeats(3*time.Second, "a", "b")
	})
}

// What a master says of masters is bounded and can be called, whatever it says.
func FuzzMemberInfo(f *testing.F) {
	f.Add([]byte(`[{"id":"a","name":"n","status":"self","rpc_urls":["http://127.0.0.1:1","x:2"],"edge_addrs":["/ip4/10.0.0.1/tcp/9005/p2p/` + idA + `"]}]`))
	f.Add([]byte(`[{"id":"` + idA + `","status":"alive","edge_addrs":["/ip4/10.0.0.1/tcp/9005/p2p/` + idA + `"]},{"id":"b","status":"left"}]`))
	f.Fuzz(func(t *testing.T, list []byte) {
		d := newMembership("", fakeEdge{}, slog.New(slog.DiscardHandler))
		for range 2 {
			d.learn(decodeMembers(list), false)
		}
		if len(d.known) > maxMasters {
			t.Errorf("%d masters", len(d.known))
		}
		for id, m := range d.known {
			if !validID(id) || len(m.urls) > maxAddrs || len(m.edges) > maxAddrs || len(m.name) > 256 {
				t.Errorf("learned %+v", m)
			}
			for _, addr := range d.addresses(m) {
				p, err := parseEndpoint(addr)
				if err != nil || p.local || p.ep.Network == "unix" || p.String() != addr || p.edge != "" && p.master != id {
					t.Errorf("learned %q of %s: %+v, %v", addr, id, p, err)
				}
			}
		}
	})
}
