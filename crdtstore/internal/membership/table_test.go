package membership

import (
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
)

// grid is what a table under test asks and publishes to.
type grid struct {
	nodes     []string
	exclusive int
	published []string
	forgotten []string
}

func (g *grid) NodeIDs() iter.Seq[string]                { return slices.Values(g.nodes) }
func (g *grid) CountDirect(time.Time, time.Duration) int { return len(g.nodes) }
func (g *grid) CountExclusive(time.Time, string) int     { return g.exclusive }
func (g *grid) StatusChanged(id string)                  { g.published = append(g.published, id+" changed") }
func (g *grid) Forgotten(id string)                      { g.forgotten = append(g.forgotten, id) }
func (g *grid) Happened(e Event)                         { g.published = append(g.published, e.Master+" "+e.Type+": "+e.Text) }

// texts returns the texts of the events of some type, in order.
func (g *grid) texts(types ...string) (out []string) {
	for _, text := range g.published {
		if _, rest, _ := strings.Cut(text, " "); slices.ContainsFunc(types, func(t string) bool { return strings.HasPrefix(rest, t+": ") }) {
			_, rest, _ = strings.Cut(rest, ": ")
			out = append(out, rest)
		}
	}
	return out
}

func config(path string, g *grid) Config {
	return Config{
		Self: "self", Name: "SELF", Settings: &liveness.Settings{OfflineAfter: 30 * time.Second, Retention: time.Hour}, Began: time.Now(), Wall: time.Now,
		Path: path, Logger: slog.New(slog.DiscardHandler), Nodes: g, Publisher: g,
	}
}

func load(t testing.TB, cfg Config) *Table {
	t.Helper()
	table := New(cfg)
	if err := table.Load(); err != nil {
		t.Fatal(err)
	}
	return table
}

func open(t testing.TB, path string) *Table {
	t.Helper()
	return load(t, config(path, &grid{}))
}

func alive(d *Table, id string) bool { return slices.Contains(d.Alive(time.Now()), id) }

func TestMastersPassThroughTheirStatuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, filepath.Join(t.TempDir(), "masters.json"))
		info := &liveness.MasterInfo{Name: "one", Version: "1", Wall: time.Now().UnixMilli()}
		var published []string
		look := func() {
			for _, id := range d.changedStatuses(time.Now()) {
				published = append(published, id+" "+string(d.Members(time.Now())[0].Status))
			}
		}
		hear := func(want bool) {
			t.Helper()
			if shown, back := d.Observe(time.Now(), "m1", info, true); shown != want || back != want {
				t.Errorf("to be shown anew: %v, back: %v, want %v", shown, back, want)
			}
		}
		hear(true)
		for range 4 { // while it speaks, there is nothing to tell
			time.Sleep(time.Second)
			hear(false)
			look()
		}
		for range 30 {
			time.Sleep(time.Second)
			look()
			if o := d.Observer(time.Now(), "m1"); o.Reachable != alive(d, "m1") {
				t.Error("reachable and not alive, or the other way round")
			}
		}
		hear(true)
		d.Left(time.Now(), "m1")
		look()
		time.Sleep(farewellGrace / 2)
		hear(false) // it was said before the farewell
		if alive(d, "m1") || d.Members(time.Now())[0].Status != Left {
			t.Error("one that has left is alive")
		}
		time.Sleep(time.Hour)
		look()
		if want := []string{"m1 suspect", "m1 down"}; !slices.Equal(published, want) {
			t.Errorf("told %q, want %q", published, want)
		}
		hear(true)
		if !alive(d, "m1") {
			t.Error("one that has come back is not reachable")
		}
		d.Left(time.Now(), "nobody")
		if alive(d, "nobody") {
			t.Error("nobody is reachable")
		}
	})
}

func TestWhatAMasterHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, began := open(t, filepath.Join(t.TempDir(), "masters.json")), time.Now()
		info := &liveness.MasterInfo{Name: "one", Nodes: 3, Digest: []byte{1, 0xab}, Wall: time.Now().Add(90 * time.Second).UnixMilli()}
		d.Observe(began, "m1", info, true)
		if m := d.Members(began)[0]; m.Nodes != 3 || m.Digest != "01ab" || m.Skew != 90*time.Second || !m.Same.Equal(began) || !m.Met.Equal(began) {
			t.Errorf("%+v", m)
		}
		time.Sleep(2 * time.Second)
		if shown, back := d.Observe(time.Now(), "m1", info, false); !shown || back {
			t.Error("a master that differs is not shown anew, or counts as one that is back")
		}
		if m := d.Members(time.Now())[0]; !m.Same.Equal(began) || !m.Met.Equal(began) || !m.Heard.Equal(time.Now()) {
			t.Errorf("%+v", m)
		}
		d.Merged("m1", began.Add(time.Second))
		d.Merged("m1", began)
		d.Merged("nobody", began)
		if m := d.Members(time.Now())[0]; !m.Same.Equal(began.Add(time.Second)) {
			t.Errorf("merged, %+v", m)
		}
	})
}

func TestTableIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "masters.json")
	now := time.Now()
	cfg := config(path, nil)
	cfg.Wall = func() time.Time { return now }
	d := load(t, cfg)
	if err := d.Save(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("an empty table was written")
	}
	d.Observe(now, "m1", &liveness.MasterInfo{Name: "one", MeshAddrs: []string{"/ip4/10.0.0.1/tcp/9004"}, RPCURLs: []string{"http://a"}}, true)
	d.Observe(now, "m2", &liveness.MasterInfo{Name: "two"}, true)
	d.Left(time.Now(), "m2")
	if err := d.Save(); err != nil {
		t.Fatal(err)
	}
	again := open(t, path)
	list := again.Members(now)
	if len(list) != 2 || list[0].Name != "one" || list[0].Status != Down || list[1].Status != Left {
		t.Fatalf("%+v", list)
	}
	if want := []string{"/ip4/10.0.0.1/tcp/9004"}; !slices.Equal(list[0].MeshAddrs, want) || list[0].RPCURLs[0] != "http://a" {
		t.Errorf("%+v", list[0])
	}
	if !list[0].LastSeen.Equal(now.Round(0)) {
		t.Errorf("%+v", list)
	}
	if alive(again, "m1") {
		t.Error("reachable before it was heard")
	}
	if len(again.changedStatuses(now)) > 0 {
		t.Error("what was so at the start is told as a change")
	}
}

func TestBrokenFileIsMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "masters.json")
	for _, content := range []string{"", "{", "{}", `"x"`, "[]", "null", "[null]", `{"version":1}`, `{"version":1,"masters":[null]}`, `{"version":1,"masters":{}}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		d := open(t, path)
		if n := len(d.IDs()); n != 0 {
			t.Errorf("%q gives %d masters", content, n)
		}
		d.Observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one"}, true)
		if err := d.Save(); err != nil {
			t.Error(err)
		}
		if again := open(t, path); len(again.IDs()) != 1 {
			t.Errorf("after %q nothing is kept", content)
		}
	}
	if err := New(config(filepath.Dir(path), nil)).Load(); err == nil {
		t.Error("a directory was read as a file")
	}
}

func TestWhatCouldNotBeSavedIsSavedLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gone", "masters.json")
	d := open(t, path)
	d.Observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one"}, true)
	if err := d.Save(); err == nil {
		t.Fatal("saved where there is no directory")
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(); err != nil {
		t.Fatal(err)
	}
	if again := open(t, path); len(again.IDs()) != 1 {
		t.Error("nothing was saved")
	}
}

// What a peer is said not to have been met for is published once it lasts, and anew with
// another cause.
func TestNeverMetIsPublishedOnceForEachCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &grid{}
		d := New(config("", g))
		look := func(cause string, lasted time.Duration) {
			unmet := []Unmet{{Peer: "host", Cause: cause, Reason: cause + "!", Since: time.Now()}}
			for range lasted / time.Second {
				time.Sleep(time.Second)
				d.Look(time.Now(), false, unmet)
			}
		}
		look("", time.Minute) // not tried yet
		look("refused", 4*time.Second)
		look("secret", 10*time.Second)
		look("refused", 10*time.Second)
		want := []string{"the configured master host was never met: secret!", "the configured master host was never met: refused!"}
		if got := g.texts(EventNeverMet); !slices.Equal(got, want) {
			t.Errorf("published %q, want %q", got, want)
		}
	})
}

// The share of a master passes when it is down, not when it is silent for a moment, and it
// has it back when it returns.
func TestSharesAreHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "masters.json")
		earlier := open(t, path)
		earlier.Observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one"}, true)
		if err := earlier.Save(); err != nil {
			t.Fatal(err)
		}
		g := &grid{exclusive: 2}
		for i := range 100 {
			g.nodes = append(g.nodes, fmt.Sprint("n", i))
		}
		d := load(t, config(path, g))
		look := func(d *Table, lasted time.Duration, heard bool) {
			for range lasted / time.Second {
				time.Sleep(time.Second)
				if heard {
					d.Observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one"}, true)
				}
				d.Look(time.Now(), false, nil)
			}
		}
		adopted := slices.DeleteFunc(slices.Clone(g.nodes), func(n string) bool { return Rendezvous(n, []string{"m1", "self"}) == "self" })
		look(d, 10*time.Second, false) // it may yet be heard
		look(d, time.Second, true)
		look(d, 14*time.Second, false)
		if len(g.texts(EventAdopted, EventGiven)) > 0 {
			t.Errorf("published %q while it may be there", g.published)
		}
		look(d, 2*time.Second, false)
		look(d, time.Second, true)
		want := []string{
			fmt.Sprintf("adopted %d nodes of one, which is down; 2 nodes were heard by it alone", len(adopted)),
			fmt.Sprintf("gave %d nodes back to one", len(adopted)),
		}
		if got := g.texts(EventAdopted, EventGiven); !slices.Equal(got, want) {
			t.Errorf("published %q, want %q", got, want)
		}
	})
}

// A master that hears too few nodes for a while is partially connected, this one too.
func TestPartialConnectivityIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &grid{}
		d := New(config("", g))
		look := func(joining bool, hears int) {
			for range 40 {
				time.Sleep(time.Second)
				d.Observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one", Connectivity: &liveness.Connectivity{Nodes: hears}}, true)
				d.Observe(time.Now(), "m2", &liveness.MasterInfo{Name: "two", Joining: true, Connectivity: &liveness.Connectivity{}}, true)
				d.Look(time.Now(), joining, nil)
			}
		}
		look(true, 8) // it does not have all records yet
		if why := d.PartiallyConnected("self"); why != "" {
			t.Errorf("it is joining, and %s", why)
		}
		look(false, 8)
		if why := d.PartiallyConnected("self"); why != "hears 0 of the 8 nodes that one hears" {
			t.Errorf("it %s", why)
		}
		look(false, 0)
		want := []string{"SELF hears 0 of the 8 nodes that one hears", "SELF hears 0 nodes again"}
		if got := g.texts(EventPartiallyConnected, EventFullyConnected); !slices.Equal(got, want) || d.PartiallyConnected("self") != "" {
			t.Errorf("published %q, want %q", got, want)
		}
	})
}

// Each master is judged by its own limit, one that does not tell it by this one's.
func TestObserversHaveLimits(t *testing.T) {
	now := time.Now()
	d := New(config("", &grid{}))
	d.Observe(now, "m2", &liveness.MasterInfo{Settings: &liveness.Settings{OfflineAfter: time.Minute}}, true)
	d.Observe(now.Add(-6*time.Second), "m1", &liveness.MasterInfo{Settings: &liveness.Settings{OfflineAfter: time.Hour}}, true)
	d.Observe(now, "m3", &liveness.MasterInfo{}, true)
	want := []Observer{{"self", true, 30 * time.Second}, {"m1", false, time.Hour}, {"m2", true, time.Minute}, {"m3", true, 30 * time.Second}}
	if got := d.Observers(now); !slices.Equal(got, want) || d.Observer(now, "m2") != want[2] || d.Observer(now, "x") != (Observer{"x", false, 30 * time.Second}) {
		t.Errorf("the observers are %v, want %v", got, want)
	}
	if longest := d.longestOfflineAfter(now); longest != time.Minute {
		t.Errorf("the longest limit is %v", longest)
	}
}
