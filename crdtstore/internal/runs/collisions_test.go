package runs

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
)

// connections are a mesh of one other master, whose run is the given one.
type connections struct {
	id      peer.ID
	run     string
	dropped []string // why
}

func (m *connections) Peers() []peer.ID                   { return []peer.ID{m.id} }
func (m *connections) Drop(_ peer.ID, why string)         { m.dropped = append(m.dropped, why) }
func (m *connections) MemberRun(peer.ID) (run, at string) { return m.run, "10.0.0.7" }
func (m *connections) says(run string, seq, echo uint64) *liveness.MasterInfo {
	return &liveness.MasterInfo{Run: run, Seq: seq, Echoes: []liveness.Echo{{Master: "self", Run: "ours", Seq: echo}}}
}

func newCollisions(t *testing.T) (*Collisions, *connections) {
	t.Helper()
	id, err := peer.Decode("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
	if err != nil {
		t.Fatal(err)
	}
	c, m := NewCollisions("self", "ours"), &connections{id: id, run: "2"}
	c.Use(m)
	return c, m
}

// Of two runs of another master that are heard in turns, the later one is refused, its
// connection closed, and the others hear of it.
func TestCollisionOfAnotherMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m := newCollisions(t)
		id := m.id.String()
		stamp := func() (info liveness.MasterInfo) {
			time.Sleep(time.Second)
			c.Stamp(time.Now(), &info)
			return info
		}
		hear := func(run string, seq, echo uint64) bool { return c.Observe(time.Now(), id, m.says(run, seq, echo)) }
		first := stamp()
		if !hear("1", 1, 0) || !hear("2", 1, 0) {
			t.Error("what may be a restart is not heard")
		}
		if e := stamp().Echoes; first.Run != "ours" || first.Seq != 1 || len(e) != 1 || e[0].Master != id || e[0].Run != "2" || e[0].Seq != 1 {
			t.Errorf("it echoes %+v", e)
		}
		hear("1", 2, 2)
		stamp()
		if hear("2", 2, 3) || len(m.dropped) != 1 {
			t.Errorf("the later run counts, or stays connected: %q", m.dropped)
		}
		changes := c.Look(time.Now())
		if len(changes) != 1 || changes[0].Master != id || !changes[0].Open || !strings.Contains(changes[0].Text, "stop the one at 10.0.0.7") {
			t.Errorf("published %+v", changes)
		}
		if text, _, is := c.Of(id); !is || text != changes[0].Text || len(c.Look(time.Now())) > 0 {
			t.Errorf("it is published twice, or shown as %q", text)
		}
		if k := stamp().Collisions; len(k) != 1 || k[0] != (liveness.Collision{Master: id, Kept: "1", Refused: "2"}) {
			t.Errorf("it tells the others of %+v", k)
		}
		time.Sleep(attempts + time.Second)
		hear("1", 3, 4)
		if changes = c.Look(time.Now()); len(changes) != 1 || changes[0].Open {
			t.Errorf("published %+v", changes)
		}
		if _, _, is := c.Of(id); is {
			t.Error("it goes on")
		}
	})
}

// A master of which it is said that another process has its identity, and counts, yields,
// until it has not been said for a while.
func TestYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m := newCollisions(t)
		if c.Yielded() != nil || c.HasYielded() {
			t.Error("it has yielded to nobody")
		}
		earlier := m.says("1", 1, 0)
		earlier.Collisions = []liveness.Collision{{Master: "self", Kept: "theirs", Refused: "before ours"}}
		c.Observe(time.Now(), m.id.String(), earlier)
		if changes := c.Look(time.Now()); c.Yielded() != nil || len(changes) > 0 {
			t.Errorf("it is of an earlier run, and published as %+v", changes)
		}
		info := m.says("1", 2, 0)
		info.Collisions = []liveness.Collision{{Master: "self", Kept: "theirs", Refused: "ours"}}
		c.Observe(time.Now(), m.id.String(), info)
		if err := c.Yielded(); !errors.Is(err, ErrCollision) || !c.HasYielded() || len(m.dropped) != 1 {
			t.Errorf("it does not yield: %v, dropped %q", err, m.dropped)
		}
		c.Yield(m.id, p2p.CollisionError{Kept: "theirs", Refused: "ours", At: "10.0.0.9"})
		if err := c.Yielded(); err == nil || !strings.Contains(err.Error(), "at 10.0.0.9") || len(m.dropped) != 1 {
			t.Errorf("it does not say where, or drops again: %v, %q", err, m.dropped)
		}
		if changes := c.Look(time.Now()); len(changes) != 1 || changes[0].Master != "self" || !strings.Contains(changes[0].Text, "this one is refused") {
			t.Errorf("published %+v", changes)
		}
		c.Met(time.Now(), m.id.String(), "1") // it was let in before
		if !c.HasYielded() {
			t.Error("it has not yielded while it does")
		}
		time.Sleep(yieldFor + time.Second)
		if err := c.Yielded(); err != nil {
			t.Error("it yields for ever:", err)
		}
		if changes := c.Look(time.Now()); len(changes) != 1 || changes[0].Open {
			t.Errorf("published %+v", changes)
		}
		c.Met(time.Now(), m.id.String(), "1")
		if c.HasYielded() {
			t.Error("it has yielded after it was admitted")
		}
	})
}

// Where both have yielded to a run that is gone, the earlier one counts again.
func TestBothHaveYielded(t *testing.T) {
	c, _ := newCollisions(t)
	self, err := peer.Decode("12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5")
	if err != nil {
		t.Fatal(err)
	}
	c.self = self.String()
	c.Yield("", p2p.CollisionError{Kept: "gone", Refused: "ours"})
	c.Both(self, p2p.Party{Run: "theirs", At: "10.0.0.9", Yielded: true}, p2p.Party{Run: "ours", Yielded: true})
	if err := c.Yielded(); err != nil {
		t.Error("the earlier one of two that have yielded yields on:", err)
	}
	if changes := c.Look(time.Now()); len(changes) != 1 || !strings.Contains(changes[0].Text, "this one counts; stop the one at 10.0.0.9") {
		t.Errorf("published %+v", changes)
	}
}
