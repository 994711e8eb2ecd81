package preservation

import (
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/golden"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// halfDead is a grid of ten nodes, six of which have died together a while ago.
func halfDead(t *testing.T, ago time.Duration) *herd {
	h := newHerd(t, 10)
	h.beats = func(i int) bool { return i >= 6 }
	h.run(ago)
	return h
}

// restart has the master start anew from what is on disk. The records tell when nodes
// were seen as of the last checkpoint, which may be long ago.
func (h *herd) restart(t *testing.T, checkpoint time.Time) {
	t.Helper()
	old := h.cfg
	h.Preserver = New(newConfig(t))
	h.cfg.Path = old.Path
	for e := range old.Table.All() {
		h.cfg.Table.Join(e.ID, e.State)
		seen := old.Board.LastHeard(e.ID)
		if seen.After(checkpoint) {
			seen = checkpoint
		}
		h.cfg.Table.Join(e.ID, record.State{LastSeen: seen.UnixMilli()})
	}
	if err := h.Load(); err != nil {
		t.Fatal(err)
	}
	h.Look(time.Now())
}

// never has a failure where preservation is under way at any moment.
func (h *herd) never(t *testing.T) func() {
	return func() {
		if _, on := h.Current(); on {
			t.Fatal("preservation is under way")
		}
	}
}

// An operator ends it at one master, before this one has doubted anything.
func TestEndedBeforeItBegan(t *testing.T) {
	for _, ago := range []time.Duration{time.Second, 5 * time.Second, 8 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			h := halfDead(t, ago)
			h.never(t)()
			h.End("ann", "")
			h.run(5*time.Minute, h.never(t))
			h.want(t, "dead", 4, 0, 6)
		})
	}
}

// It stays ended over a restart, whether this master has it on disk or another one tells
// of it, and whatever was last written of the nodes. Where nobody has ended it, the same
// grid is preserved.
func TestEndedStaysEndedOverARestart(t *testing.T) {
	for _, after := range []time.Duration{5 * time.Second, time.Minute, 7 * time.Minute} {
		for _, known := range []string{"on disk", "by a pulse", "not"} {
			for _, checkpoint := range []time.Duration{0, 4 * time.Minute} { // ago
				t.Run(fmt.Sprintf("%s, %v after, checkpoint %v ago", known, after, checkpoint), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						h := halfDead(t, 45*time.Second)
						h.End("ann", "")
						published := h.ended.Load()
						h.run(after, h.never(t))
						if known != "on disk" {
							if err := os.Remove(h.cfg.Path); err != nil {
								t.Fatal(err)
							}
						}
						h.restart(t, time.Now().Add(-checkpoint))
						h.run(time.Second)
						if known == "by a pulse" {
							h.Learn(time.Now(), "other", &liveness.Ended{
								Wall: published.stamp.Wall, Master: published.master, By: published.by, Age: time.Since(published.at),
							})
						}
						if known == "not" {
							h.run(35 * time.Second)
							if h.want(t, "not ended", 4, 6, 0); after > time.Minute {
								return
							}
							if _, on := h.Current(); !on {
								t.Error("it is not preserved, so the test shows nothing")
							}
							return
						}
						h.run(20*time.Second, h.never(t)) // it has just begun to listen
						h.run(11*time.Second, h.never(t))
						h.want(t, "ended", 4, 0, 6)
						h.run(10*time.Minute, h.never(t), func() { h.want(t, "ended", 4, 0, 6) })
					})
				})
			}
		}
	}
}

// Who falls silent later is doubted as ever, and the dead stay dead.
func TestLaterSilenceIsPreserved(t *testing.T) {
	for _, later := range []time.Duration{70 * time.Second, 5 * time.Minute, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			h := halfDead(t, 45*time.Second)
			h.End("ann", "")
			h.run(later, h.never(t))
			h.beats = func(int) bool { return false }
			h.run(45 * time.Second)
			h.want(t, "the rest is silent", 0, 4, 6)
			h.run(3 * time.Minute)
			h.want(t, "for long", 0, 4, 6)
			h.End("bob", "")
			h.want(t, "and dead", 0, 0, 10)
			h.beats = func(int) bool { return true }
			h.run(11 * time.Second)
			h.want(t, "back", 10, 0, 0)
		})
	}
}

// After a restart, too: the dead, which this master has never heard, stay dead while the
// silence of the rest is doubted.
func TestSilenceAfterARestartIsPreserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := halfDead(t, 45*time.Second)
		h.End("ann", "")
		h.run(time.Minute, h.never(t))
		h.restart(t, time.Now())
		h.run(11*time.Second, h.never(t)) // in which the rest is heard
		h.beats = func(int) bool { return false }
		h.run(45 * time.Second)
		h.want(t, "the rest is silent", 0, 4, 6)
	})
}

// A master that has slept through it hears nobody at first, and takes nobody for dead.
func TestEndedWhileItStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHerd(t, 10)
		h.beats = func(i int) bool { return i >= 6 }
		time.Sleep(5 * time.Minute)
		h.Look(time.Now())
		h.Learn(time.Now(), "other", &liveness.Ended{Wall: time.Now().UnixMilli(), Master: "other", By: "ann", Age: time.Minute})
		h.want(t, "it wakes", 0, 10, 0)
		h.run(11 * time.Second)
		h.want(t, "it hears", 4, 6, 0)
		h.run(25 * time.Second)
		h.want(t, "it has listened", 4, 0, 6)
	})
}

// A master that is told late of an ending goes on with the doubt that began after it, for
// the nodes that fell silent after it.
func TestEndedBeforeTheOthersFellSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHerd(t, 10)
		h.beats = func(i int) bool { return i >= 2 }
		h.run(5 * time.Minute)
		h.beats = func(int) bool { return false }
		h.run(45 * time.Second)
		h.want(t, "the rest is silent", 0, 8, 2)
		h.Learn(time.Now(), "other", &liveness.Ended{Wall: 1, Master: "other", By: "ann", Age: 4 * time.Minute})
		h.run(30 * time.Second)
		h.want(t, "told of an older ending", 0, 8, 2)
	})
}

// A master that stands still soon after an ending doubts what it could not hear, and not
// for longer the nodes that were dead before.
func TestStoodStillAfterTheEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := halfDead(t, 18*time.Second) // when it begins to doubt them, and shows them as online still
		h.End("ann", "")
		h.run(time.Second)
		time.Sleep(time.Minute)
		h.run(5 * time.Second)
		if _, on := h.Current(); !on {
			t.Error("it stood still, and doubts nothing")
		}
		h.run(36 * time.Second)
		if p, on := h.Current(); on {
			t.Errorf("it goes on for the dead: %+v", p)
		}
		h.want(t, "it has listened", 4, 0, 6)
	})
}

// It is so too where the rest falls silent meanwhile, so that the doubt goes on.
func TestStoodStillAfterTheEndingInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := halfDead(t, 8*time.Second)
		h.End("ann", "")
		h.run(11 * time.Second) // in which the rest is heard
		time.Sleep(10 * time.Second)
		h.beats = func(int) bool { return false }
		h.run(45 * time.Second)
		h.want(t, "it has listened", 0, 4, 6)
	})
}

// Endings are a last-writer-wins register: whatever order masters hear of them in, however
// late, and however wrong their clocks are, all end with the same one, which is the last
// where one operator knew of the other's; and to go on telling changes nothing.
func TestEndingsConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		inBubble(t, rt, func(t *testing.T) {
			var all []*Preserver
			for i := range 3 {
				cfg := newConfig(t)
				cfg.Self = fmt.Sprint("m", i)
				skew := time.Duration(rapid.IntRange(-2, 2).Draw(rt, "hours")) * time.Hour
				cfg.Wall = func() time.Time { return time.Now().Add(skew) }
				all = append(all, New(cfg))
			}
			who := rapid.IntRange(0, len(all)-1)
			publish := func(from, to *Preserver, late time.Duration) {
				m := from.Ending(time.Now())
				time.Sleep(late)
				to.Learn(time.Now(), from.cfg.Self, m)
			}
			var last *ending // that was made with the one before known
			everywhere := true
			rt.Repeat(map[string]func(*rapid.T){
				"end": func(*rapid.T) {
					c := all[who.Draw(rt, "at")]
					known := c.ended.Load()
					everywhere = everywhere && (last == nil || known != nil && known.stamp == last.stamp)
					c.End("ann", "")
					if last = c.ended.Load(); !last.at.Equal(time.Now()) || !last.prevails(known) {
						rt.Errorf("an operator is not heard: %+v, and before it %+v", last, known)
					}
				},
				"tell": func(*rapid.T) {
					publish(all[who.Draw(rt, "from")], all[who.Draw(rt, "to")], time.Duration(rapid.IntRange(0, 900).Draw(rt, "ms"))*time.Millisecond)
				},
				"wait": func(*rapid.T) { time.Sleep(10 * time.Second) },
			})
			for range 3 {
				for _, from := range all {
					for _, to := range all {
						publish(from, to, 100*time.Millisecond)
					}
				}
			}
			ended := all[0].ended.Load()
			if last != nil && everywhere && (ended == nil || ended.stamp != last.stamp) {
				rt.Errorf("the ending is %+v, the last was %+v", ended, last)
			}
			for range 20 {
				for _, from := range all {
					for _, to := range all {
						publish(from, to, 900*time.Millisecond)
					}
				}
			}
			for _, c := range all {
				got := c.ended.Load()
				if (got == nil) != (ended == nil) || got != nil && (got.stamp != ended.stamp || got.master != ended.master) {
					rt.Errorf("one has %+v, another %+v", got, ended)
				}
				if got != nil && got.at.Sub(ended.at).Abs() > 10*time.Second {
					rt.Errorf("one ended at %v, another at %v", got.at, ended.at)
				}
			}
			if ended != all[0].ended.Load() {
				rt.Error("it is taken again and again")
			}
		})
	})
}

// inBubble is synctest.Test for what rapid checks. What rapid throws when it has no more
// to draw goes on out of the bubble; anything else is a failure. Rapid tells the two apart
// by the place.
func inBubble(t *testing.T, rt *rapid.T, f func(*testing.T)) {
	var thrown any
	synctest.Test(t, func(t *testing.T) {
		defer func() { thrown = recover() }()
		f(t)
	})
	switch {
	case thrown == nil:
	case fmt.Sprintf("%T", thrown) == "rapid.invalidData":
		panic(thrown)
	default:
		rt.Fatalf("%v", thrown)
	}
}

// What counts no more is not told, and not taken.
func TestOldEndings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(newConfig(t))
		const counts = 15 * time.Minute
		p.Learn(time.Now(), "other", &liveness.Ended{Wall: 1, Master: "other", Age: counts + time.Millisecond})
		if p.ended.Load() != nil {
			t.Error("one that counts no more is taken")
		}
		p.End("ann", "")
		time.Sleep(counts)
		if m := p.Ending(time.Now()); m == nil || m.By != "ann" || m.Age != counts || m.Master != self || m.Wall == 0 {
			t.Errorf("told is %+v", m)
		}
		time.Sleep(time.Millisecond)
		if m := p.Ending(time.Now()); m != nil {
			t.Errorf("told is %+v", m)
		}
	})
}

func TestGoldenEnding(t *testing.T) { synctest.Test(t, goldenEnding) }

func goldenEnding(t *testing.T) {
	p := New(newConfig(t))
	at := time.UnixMilli(1_760_000_000_500)
	p.cfg.Wall = func() time.Time { return at.Add(time.Since(p.cfg.Began)) }
	p.save(&ending{record.Stamp{Wall: 1_760_000_000_000, Logical: 1}, "12D3KooWoak", "ann", p.cfg.Began})
	written, err := os.ReadFile(p.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	kept := golden.Text(t, "preservation.json", string(written))
	load := func(content string, wall time.Time) (*Preserver, error) {
		next := New(newConfig(t))
		next.cfg.Wall = func() time.Time { return wall }
		if err := os.WriteFile(next.cfg.Path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return next, next.Load()
	}
	for age, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, -time.Hour: 0} { // the clock has gone back
		next, err := load(kept, at.Add(age))
		if err != nil {
			t.Fatal(err)
		}
		e := next.ended.Load()
		if e == nil {
			t.Fatal("the kept file is not taken")
		}
		if e.stamp != (record.Stamp{Wall: 1_760_000_000_000, Logical: 1}) || e.master != "12D3KooWoak" || e.by != "ann" || next.cfg.Began.Sub(e.at) != want {
			t.Errorf("the kept file reads as %+v, %v before the start", e, next.cfg.Began.Sub(e.at))
		}
	}
	for content, refused := range map[string]bool{`{"version":2}`: true, `{"version":1`: false, ``: false} {
		if next, err := load(content, at); (err != nil) != refused || next.ended.Load() != nil {
			t.Errorf("%q: %v", content, err)
		}
	}
}
