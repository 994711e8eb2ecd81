package replica

import (
	"log/slog"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const hour = int64(time.Hour / time.Millisecond)

// clocked is a replica whose clocks are set by the test.
type clocked struct {
	*Replica
	now     time.Time
	wall    int64
	masters []string             // that are known
	alive   map[string]time.Time // when those that live were heard
	heard   map[string]int64
}

func (c *clocked) IDs() []string { return c.masters }

func (c *clocked) Alive(now time.Time) (out []string) {
	for id, at := range c.alive {
		if now.Sub(at) <= membership.SuspectAfter {
			out = append(out, id)
		}
	}
	return out
}

func (c *clocked) Direct(string) bool      { return false }
func (c *clocked) Heard(node string) int64 { return c.heard[node] }

// newClocked returns a replica that remembers nodes for an hour.
func newClocked(t *testing.T) *clocked {
	t.Helper()
	c := &clocked{now: time.Unix(1_700_000_000, 0), wall: 1_700_000_000_000, alive: map[string]time.Time{}, heard: map[string]int64{}}
	c.Replica = New(Options{
		Self: "m1", Table: table.New(), Grid: c,
		Now: func() time.Time { return c.now }, Wall: func() int64 { return c.wall },
		Retention: time.Hour, EpochAge: 24 * time.Hour, EpochBytes: 1 << 30, Logger: slog.New(slog.DiscardHandler),
	})
	l, err := epoch.Open(t.Context(), epoch.Options{
		Dir: t.TempDir(), Master: "m1", NoSync: true, Logger: slog.New(slog.DiscardHandler), Apply: c.Arrived,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c.Use(l)
	return c
}

func (c *clocked) pass(ms int64) {
	c.now = c.now.Add(time.Duration(ms) * time.Millisecond)
	c.wall += ms
}

func (c *clocked) tick(t *testing.T) {
	t.Helper()
	if err := c.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(); err != nil {
		t.Fatal(err)
	}
}

// hears has another master say what its clock shows, from ours.
func (c *clocked) hears(t *testing.T, id string, ahead int64) {
	t.Helper()
	c.alive[id] = c.now
	if _, err := c.Replica.Observe(t.Context(), id, Summary{Epoch: c.history.Number(), Wall: c.wall + ahead}); err != nil {
		t.Fatal(err)
	}
}

func (c *clocked) register(t *testing.T, node string) {
	t.Helper()
	s, err := record.Accept(record.State{}, record.Report{NodeID: node, Boot: 1, Seq: 1}, record.Acceptance{Now: c.wall})
	if err != nil {
		t.Fatal(err)
	}
	c.Learned(node, s)
}

func TestExpiryGoesByTheSlowestClock(t *testing.T) {
	c := newClocked(t)
	c.register(t, "silent")
	c.register(t, "lives")
	c.pass(hour + 1)
	c.heard["lives"] = c.wall
	c.hears(t, "m2", -hour/2) // by which half of the time has passed
	living := c.living()
	if len(living) != 2 {
		t.Fatalf("%q live", living)
	}
	c.tick(t)
	if c.State("silent").Removed() {
		t.Error("it expired by one clock and not by the other")
	}
	c.pass(hour)
	c.tick(t)
	// By now m2 has not been heard for an hour, and what its clock shows is known.
	if s := c.State("silent"); !s.Removed() || s.Removal.Reason != record.ReasonExpired {
		t.Errorf("it did not expire: %+v", s)
	}
	if c.State("lives").Removed() {
		t.Error("a node that lives expired")
	}
}

// The clock of a master that was forgotten holds nothing back any more.
func TestForgottenClocksDoNotCount(t *testing.T) {
	c := newClocked(t)
	c.register(t, "silent")
	c.pass(2 * hour)
	c.hears(t, "m2", -100*hour)
	c.tick(t)
	if c.State("silent").Removed() {
		t.Fatal("it expired although a clock says that it is too early")
	}
	before := c.nextCutoff()
	c.Forget("m2")
	if c.peers.stuck("m2") || c.nextCutoff() <= before {
		t.Errorf("with m2 forgotten the cutoff goes from %d to %d", before, c.nextCutoff())
	}
	c.pass(hour)
	c.tick(t)
	if s := c.State("silent"); !s.Removed() || s.Removal.Reason != record.ReasonExpired {
		t.Errorf("it did not expire: %+v", s)
	}
}

func TestNothingExpiresRightAfterTheStart(t *testing.T) {
	c := newClocked(t)
	c.wall -= 3 * hour // when it was last seen, before all masters were down
	c.register(t, "n")
	c.wall += 3 * hour
	c.tick(t)
	if c.State("n").Removed() {
		t.Error("it had no time to be heard")
	}
	c.pass(hour / 10)
	c.tick(t)
	if !c.State("n").Removed() {
		t.Error("it did not expire")
	}
}

func TestCutoffWaitsForAllClocks(t *testing.T) {
	c := newClocked(t)
	c.masters = []string{"m2", "m3"}
	c.hears(t, "m2", 0)
	if got := c.nextCutoff(); got != 0 {
		t.Errorf("cutoff %d without the clock of m3", got)
	}
	c.hears(t, "m3", -5*hour)
	if want := c.wall - 5*hour - keepFactor*hour; c.nextCutoff() != want {
		t.Errorf("cutoff %d, want %d", c.nextCutoff(), want)
	}
}

// A cutoff that a clock contradicts has no effect, whoever brings it, and has one
// when the clock is put right.
func TestContradictedCutoffHasNoEffect(t *testing.T) {
	c := newClocked(t)
	c.register(t, "old")
	c.pass(20 * hour)
	c.register(t, "new")
	if same, err := c.Follow(t.Context(), "m2", 1, c.wall+hour); !same || err != nil || c.history.Cutoff() != 0 {
		t.Errorf("followed a cutoff in the future: %v, %v, %d", same, err, c.history.Cutoff())
	}
	cutoff := c.wall - 10*hour
	if _, err := c.Follow(t.Context(), "m2", 1, cutoff); err != nil || c.history.Cutoff() != cutoff {
		t.Fatal("did not follow:", err, c.history.Cutoff())
	}
	if !c.State("old").IsZero() || c.State("new").IsZero() {
		t.Error("what is older than the cutoff is here, or what is newer is not")
	}
	old := record.State{LastSeen: cutoff - 1}
	if _, news := c.Learned("old", old); news {
		t.Error("what was forgotten was learned again")
	}
	c.hears(t, "m3", -9*hour)
	c.tick(t)
	if _, news := c.Learned("old", old); !news {
		t.Error("the cutoff stands against a clock that says it is too early")
	}
	if w := c.Wall(); w != c.wall {
		t.Errorf("stamps at %d, the clock says %d", w, c.wall)
	}
}

// A clock that is behind the cutoff does not make what is said too old to be kept.
func TestStampsAreNotBeforeTheCutoff(t *testing.T) {
	c := newClocked(t)
	c.pass(100 * hour)
	if _, err := c.Follow(t.Context(), "m2", 1, c.wall-10*hour); err != nil {
		t.Fatal(err)
	}
	c.wall -= 12 * hour
	if w := c.Wall(); w < c.history.Cutoff() {
		t.Errorf("stamps at %d, before the cutoff at %d", w, c.history.Cutoff())
	}
}
