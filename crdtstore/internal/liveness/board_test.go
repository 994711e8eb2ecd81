package liveness

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// naive is the board as one would write it first: everything that was ever said,
// looked through anew for each question.
type naive struct {
	said []saying
}

type saying struct {
	id, master string
	v          record.Version
	usage      *record.Usage
	uptime     *uint64
	at         time.Time
}

// direct is what a master heard itself of a node, replays left out.
func (n *naive) direct(id string) record.Version {
	var v record.Version
	for _, s := range n.said {
		if s.id == id && s.master == "self" && s.v.Compare(v) > 0 {
			v = s.v
		}
	}
	return v
}

// vital goes through what was said in the order in which it came.
func (n *naive) vital(id string) (Vital, bool) {
	var v Vital
	known := false
	at := map[string]time.Time{}
	var of time.Time // the time of the word that counts
	for _, s := range n.said {
		if s.id != id {
			continue
		}
		known = true
		if s.at.After(at[s.master]) {
			at[s.master] = s.at
		}
		order := s.v.Compare(v.Version)
		switch legacy := s.v == (record.Version{}); {
		case s.master == "self" && (legacy || order >= 0), order > 0, order == 0 && s.at.After(of):
			if s.usage != nil || s.uptime != nil {
				of = s.at
			}
			if !legacy {
				v.Version = s.v
			}
			if s.usage != nil {
				v.Usage = *s.usage
			}
			if s.uptime != nil {
				v.UptimeS = *s.uptime
			}
		}
	}
	for m, t := range at {
		v.Observation = append(v.Observation, Observation{Master: m, At: t})
	}
	return v, known
}

func (v Vital) sorted() Vital {
	v.Observation = slices.SortedFunc(slices.Values(v.Observation), func(a, b Observation) int { return cmp.Compare(a.Master, b.Master) })
	return v
}

func (v Vital) String() string {
	return fmt.Sprintf("%v %v %d %v", v.Version, v.Usage, v.UptimeS, v.Observation)
}

func drawVersion(r *rapid.T) record.Version {
	if rapid.IntRange(0, 5).Draw(r, "legacy") == 0 {
		return record.Version{}
	}
	return record.Version{Boot: rapid.Uint64Range(1, 3).Draw(r, "boot"), Seq: rapid.Uint64Range(1, 5).Draw(r, "seq")}
}

func TestBoardAgreesWithTheNaiveOne(t *testing.T) {
	ids := []string{"a", "b", "c"}
	rapid.Check(t, func(r *rapid.T) {
		b, model := New("self"), &naive{}
		now := time.Unix(1000, 0)
		told := map[string]bool{} // heard here since the last Collect
		r.Repeat(map[string]func(*rapid.T){
			"time passes": func(r *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(r, "ms")) * time.Millisecond)
			},
			"beat": func(r *rapid.T) {
				s := saying{id: rapid.SampledFrom(ids).Draw(r, "id"), master: "self", v: drawVersion(r), at: now}
				if rapid.Bool().Draw(r, "with usage") {
					s.usage = &record.Usage{MRU: rapid.Uint64Range(0, 9).Draw(r, "mru")}
				}
				if rapid.Bool().Draw(r, "with uptime") {
					up := rapid.Uint64Range(0, 9).Draw(r, "uptime")
					s.uptime = &up
				}
				fresh := s.v == (record.Version{}) || s.v.Compare(model.direct(s.id)) > 0
				if got := b.Beat(now, s.id, s.v, s.usage, s.uptime); got != fresh {
					r.Fatalf("Beat says %v, want %v", got, fresh)
				}
				if fresh {
					model.said = append(model.said, s)
					told[s.id] = true
				}
			},
			"merge": func(r *rapid.T) {
				p := Pulse{
					NodeID: rapid.SampledFrom(ids).Draw(r, "id"), Version: drawVersion(r),
					Usage:   record.Usage{MRU: rapid.Uint64Range(0, 9).Draw(r, "mru")},
					UptimeS: rapid.Uint64Range(0, 9).Draw(r, "uptime"),
					Age:     time.Duration(rapid.IntRange(-1000, 9000).Draw(r, "age")) * time.Millisecond,
				}
				s := saying{p.NodeID, rapid.SampledFrom([]string{"m1", "m2"}).Draw(r, "master"), p.Version,
					&p.Usage, &p.UptimeS, now.Add(-max(p.Age, 0))}
				for range rapid.IntRange(1, 2).Draw(r, "times") {
					b.Merge(now, s.master, p)
				}
				model.said = append(model.said, s)
			},
			"collect": func(r *rapid.T) {
				var got []string
				for _, p := range b.Collect(now) {
					got = append(got, p.NodeID)
					v, _ := b.Vital(p.NodeID, nil)
					i := slices.IndexFunc(v.Observation, func(h Observation) bool { return h.Master == "self" })
					if p.Version != v.Version || p.Usage != v.Usage || p.UptimeS != v.UptimeS || p.Age != now.Sub(v.Observation[i].At) {
						r.Fatalf("%+v is told, %v is known", p, v)
					}
				}
				slices.Sort(got)
				if want := slices.Sorted(maps.Keys(told)); !slices.Equal(got, want) {
					r.Fatalf("Collect gives %q, want %q", got, want)
				}
				clear(told)
			},
			"everything": func(r *rapid.T) {
				age := time.Duration(rapid.IntRange(0, 9000).Draw(r, "age")) * time.Millisecond
				var got, want []string
				for _, p := range b.Everything(now, age) {
					got = append(got, p.NodeID)
				}
				for _, id := range ids {
					v, _ := model.vital(id)
					for _, h := range v.Observation {
						if h.Master == "self" && now.Sub(h.At) <= age {
							want = append(want, id)
						}
					}
				}
				if slices.Sort(got); !slices.Equal(got, want) {
					r.Fatalf("Everything gives %q, want %q", got, want)
				}
			},
			"": func(r *rapid.T) {
				for _, id := range ids {
					want, known := model.vital(id)
					got, ok := b.Vital(id, make([]Observation, 1))
					if ok != known || got.sorted().String() != want.sorted().String() {
						r.Fatalf("%s is %v (%v), want %v (%v)", id, got.sorted(), ok, want.sorted(), known)
					}
				}
			},
		})
	})
}

func TestForget(t *testing.T) {
	b, now := New("self"), time.Unix(1, 0)
	b.Beat(now, "n", record.Version{Boot: 1, Seq: 1}, nil, nil)
	b.Forget("n") // it has still to be told
	if got := b.Collect(now); len(got) != 1 {
		t.Errorf("a beat was lost: %v", got)
	}
	b.Forget("n")
	b.Forget("never heard of")
	if _, ok := b.Vital("n", nil); ok || len(b.Everything(now, time.Hour)) != 0 {
		t.Error("the node is still known")
	}
	if !b.Beat(now, "n", record.Version{Boot: 1, Seq: 1}, nil, nil) || len(b.Collect(now)) != 1 {
		t.Error("the node is not heard anew")
	}
}

// TestCollectTellsEveryBeatOnce has nodes beat while another collects: each beat
// is covered by a pulse that is collected after it.
func TestCollectTellsEveryBeatOnce(t *testing.T) {
	b, now := New("self"), time.Unix(1, 0)
	const nodes, beats = 50, 200
	var all sync.WaitGroup
	for n := range nodes {
		all.Go(func() {
			for i := range beats {
				usage := record.Usage{MRU: uint64(i)}
				if !b.Beat(now, fmt.Sprint(n), record.Version{Boot: 1, Seq: uint64(i + 1)}, &usage, nil) {
					t.Error("a fresh beat was refused")
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	last := map[string]record.Version{}
	collect := func() {
		once := map[string]bool{}
		for _, p := range b.Collect(now) {
			if once[p.NodeID] || p.Version.Compare(last[p.NodeID]) <= 0 {
				t.Errorf("%s was told again: %v after %v", p.NodeID, p.Version, last[p.NodeID])
			}
			once[p.NodeID], last[p.NodeID] = true, p.Version
		}
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		collect()
	}
	for n := range nodes {
		if v := last[fmt.Sprint(n)]; v.Seq != beats {
			t.Errorf("%d: the last that was told is %v", n, v)
		}
	}
	if got := b.Collect(now); len(got) != 0 {
		t.Errorf("told again: %v", got)
	}
}

func TestBeatDoesNotAllocate(t *testing.T) {
	b, now := New("self"), time.Unix(1, 0)
	usage, uptime, seq := record.Usage{MRU: 1}, uint64(5), uint64(0)
	b.Beat(now, "n", record.Version{Boot: 1}, &usage, &uptime)
	if n := testing.AllocsPerRun(100, func() {
		seq++
		b.Beat(now, "n", record.Version{Boot: 1, Seq: seq}, &usage, &uptime)
	}); n > 0 {
		t.Errorf("%v allocations a beat", n)
	}
}

// A node is named once, when it is heard for the first time or for the first time
// since somebody awaited it.
func TestRoused(t *testing.T) {
	b, now := New("self"), time.Now()
	want := func(when string, ids ...string) {
		t.Helper()
		if got := b.Woken(); !slices.Equal(slices.Sorted(slices.Values(got)), ids) {
			t.Errorf("%s: woken %q, want %q", when, got, ids)
		}
	}
	b.WakeOn("n")
	want("nobody was heard")
	b.Beat(now, "n", record.Version{}, nil, nil)
	b.Merge(now, "other", Pulse{NodeID: "o"})
	want("both are new", "n", "o")
	b.Beat(now, "n", record.Version{}, nil, nil)
	b.Merge(now, "other", Pulse{NodeID: "o"})
	want("nobody awaits them")
	b.WakeOn("n")
	b.WakeOn("n")
	want("nothing was heard since")
	b.Beat(now, "n", record.Version{Boot: 1, Seq: 1}, nil, nil)
	b.Beat(now, "n", record.Version{Boot: 1, Seq: 2}, nil, nil)
	want("heard twice", "n")
	b.WakeOn("n")
	if b.Beat(now, "n", record.Version{Boot: 1, Seq: 2}, nil, nil) {
		t.Error("a repeated beat was taken")
	}
	want("a repeated beat is no sign of life")
	b.Merge(now, "other", Pulse{NodeID: "n", Age: time.Hour})
	want("by another master", "n")
}

// Who holds a node's tunnel travels with the pulses, and is told when it changes, a
// beat or not.
func TestTunnel(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b := New("a"), New("b")
	carry := func() {
		for _, msg := range Encode(&MasterInfo{}, a.Collect(now)) {
			m, err := Decode(msg)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range m.Pulses {
				b.Merge(now, "a", p)
			}
		}
	}
	holds := func(b *Board) (held bool) {
		v, _ := b.Vital("n", nil)
		for _, h := range v.Observation {
			held = held || h.Tunnel
		}
		return held
	}
	a.Tunnel(now, "n", false) // of a node that is not known here
	if carry(); holds(a) || holds(b) {
		t.Fatal("it holds no tunnel yet")
	}
	for _, open := range []bool{true, false, true} {
		a.Tunnel(now, "n", open)
		if carry(); holds(a) != open || holds(b) != open {
			t.Errorf("open %v: a says %v, b %v", open, holds(a), holds(b))
		}
		now = now.Add(time.Second)
		a.Beat(now, "n", record.Version{Boot: 1, Seq: uint64(now.Unix())}, nil, nil)
		if carry(); holds(a) != open || holds(b) != open {
			t.Errorf("open %v, after a beat: a says %v, b %v", open, holds(a), holds(b))
		}
	}
}
