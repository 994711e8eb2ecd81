package table

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// someState draws a state out of few, so that many are equal or dominated.
func someState(r *rapid.T) record.State {
	switch rapid.IntRange(0, 5).Draw(r, "kind") {
	case 0:
		return record.State{LastSeen: rapid.Int64Range(1, 5).Draw(r, "seen")}
	case 1:
		return record.State{}.Set(rapid.Int64Range(1, 3).Draw(r, "now"), "m", "", record.FieldDrain, "1")
	case 2:
		known := account(rapid.Uint64Range(1, 3).Draw(r, "boot"), 1, "x")
		return known.Remove(rapid.Int64Range(1, 3).Draw(r, "now"), "m", "", "")
	default:
		return account(rapid.Uint64Range(1, 4).Draw(r, "boot"), rapid.Uint64Range(1, 3).Draw(r, "seq"),
			rapid.SampledFrom([]string{"a", "B"}).Draw(r, "host"))
	}
}

func account(boot, seq uint64, host string) record.State {
	r := record.Report{NodeID: "n", Boot: boot, Seq: seq, VMs: []record.VM{{SID: "VM-" + host}}}
	r.Hostname = host
	s, err := record.Accept(record.State{}, r, record.Acceptance{Now: 1000})
	if err != nil {
		panic(err)
	}
	return s
}

// check compares a table with what it should hold.
func check(t rapid.TB, tab *Table, want map[string]record.State) {
	t.Helper()
	var digest record.Digest
	live, bytes := 0, 0
	for id, s := range want {
		digest = digest.Xor(s.Digest(id))
		bytes += len(s.Encode())
		if !s.Removed() {
			live++
		}
		e := tab.Get(id)
		if e == nil || e.ID != id || !e.State.Equal(s) || e.Removed != s.Removed() {
			t.Fatalf("%s holds %+v, want %+v", id, e, s)
		}
	}
	if d, n := tab.Digest(); d != digest || n != live {
		t.Fatalf("digest %x of %d live nodes, want %x of %d", d, n, digest, live)
	}
	if n := tab.Bytes(); n != bytes {
		t.Fatalf("states of %d bytes, want %d", n, bytes)
	}
	var got []string
	for e := range tab.All() {
		got = append(got, e.ID)
	}
	if all := slices.Sorted(maps.Keys(want)); !slices.Equal(got, all) {
		t.Fatalf("All yields %q, want %q", got, all)
	}
}

func TestTableIsTheJoinOfAllItSaw(t *testing.T) {
	ids := []string{"a", "b", "B", "..", "a:", "a-", "a.b", "z"}
	rapid.Check(t, func(r *rapid.T) {
		tab, model := New(), map[string]record.State{}
		r.Repeat(map[string]func(*rapid.T){
			"join": func(r *rapid.T) {
				id, s := rapid.SampledFrom(ids).Draw(r, "id"), someState(r)
				was, had := model[id]
				now := record.Join(was, s)
				before, after := tab.Join(id, s)
				if (before != nil) != had || had && !before.State.Equal(was) || !after.State.Equal(now) {
					r.Fatalf("Join gives %+v and %+v, want %+v and %+v", before, after, was, now)
				}
				if (before == after) != (had && now.Equal(was)) {
					r.Fatalf("whether the state brought anything new: %v", before != after)
				}
				model[id] = now
			},
			"after": func(r *rapid.T) {
				id := rapid.OneOf(rapid.SampledFrom(ids), rapid.StringN(0, 3, 3)).Draw(r, "id")
				var got, want []string
				for e := range tab.After(id) {
					got = append(got, e.ID)
				}
				for _, k := range slices.Sorted(maps.Keys(model)) {
					if k > id {
						want = append(want, k)
					}
				}
				if !slices.Equal(got, want) {
					r.Fatalf("After(%q) yields %q, want %q", id, got, want)
				}
			},
			"stop early": func(r *rapid.T) {
				for range tab.All() {
					break
				}
			},
			"unknown": func(r *rapid.T) {
				if e := tab.Get("nobody"); e != nil {
					r.Fatalf("%+v", e)
				}
			},
			"": func(r *rapid.T) { check(r, tab, model) },
		})
	})
}

// TestConcurrentJoins has many join into few entries at once, while others read.
func TestConcurrentJoins(t *testing.T) {
	tab, want := New(), map[string]record.State{}
	type join struct {
		id    string
		state record.State
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var joins []join
	for range 600 {
		j := join{fmt.Sprintf("n%d", rnd.IntN(4)), account(1+rnd.Uint64N(5), 1+rnd.Uint64N(9), fmt.Sprint(rnd.IntN(3)))}
		if rnd.IntN(5) == 0 {
			j.state = j.state.Remove(rnd.Int64N(100), "m", "", "")
		}
		joins = append(joins, j)
		want[j.id] = record.Join(want[j.id], j.state)
	}
	const writers = 6
	changes := make([]map[string]int, writers)
	var all, readers sync.WaitGroup
	stop := make(chan struct{})
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			last := ""
			for e := range tab.All() {
				if e.ID <= last {
					t.Errorf("%q after %q", e.ID, last)
				}
				last = e.ID
			}
			tab.Digest()
		}
	})
	for w := range writers {
		changes[w] = map[string]int{}
		all.Go(func() {
			for i := range joins {
				j := joins[(i+w*100)%len(joins)]
				before, after := tab.Join(j.id, j.state)
				if !after.State.Dominates(j.state) {
					t.Errorf("the entry after a join does not hold what was joined")
				}
				if before == nil {
					changes[w][j.id]++
				}
			}
		})
	}
	all.Wait()
	close(stop)
	readers.Wait()
	check(t, tab, want)
	for id := range want {
		first := 0
		for _, c := range changes {
			first += c[id]
		}
		if first != 1 {
			t.Errorf("%s was new %d times", id, first)
		}
	}
}

// TestFlood is many new nodes at once, with readers between.
func TestFlood(t *testing.T) {
	tab, want := New(), map[string]record.State{}
	var all sync.WaitGroup
	for w := range 4 {
		for i := range 500 {
			want[fmt.Sprintf("n%d-%d", w, i)] = account(1, 1, "x")
		}
		all.Go(func() {
			for i := range 500 {
				tab.Join(fmt.Sprintf("n%d-%d", w, i), account(1, 1, "x"))
				if i%50 == 0 {
					for e := range tab.After("n1") {
						_ = e.Node()
					}
				}
			}
		})
	}
	all.Wait()
	check(t, tab, want)
}

func TestNothingSaidMakesNoEntry(t *testing.T) {
	tab := New()
	if before, after := tab.Join("n", record.State{}); before != nil || after != nil || tab.Get("n") != nil {
		t.Errorf("%+v, %+v", before, after)
	}
	check(t, tab, map[string]record.State{})
	_, first := tab.Join("n", account(1, 1, "x"))
	if before, after := tab.Join("n", record.State{}); before != first || after != first {
		t.Errorf("%+v, %+v", before, after)
	}
}

func TestEntriesDoNotChange(t *testing.T) {
	tab := New()
	_, first := tab.Join("n", account(1, 1, "one"))
	_, second := tab.Join("n", account(1, 2, "two"))
	if first.Hostname != "one" || second.Hostname != "two" || tab.Get("n") != second {
		t.Errorf("%q and %q", first.Hostname, second.Hostname)
	}
}

func TestSearchText(t *testing.T) {
	r := record.Report{NodeID: "Node-1", Boot: 1, Seq: 1, VMs: []record.VM{{SID: "SID1", Name: "WebServer"}}}
	r.Hostname, r.SocketPath, r.MyceliumIP = "HOST", "unix:///Run/x.sock", "400:ABCD::1"
	r.Labels = map[string]string{"Rack": "R7"}
	s, err := record.Accept(record.State{}, r, record.Acceptance{Now: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, e := New().Join("Node-1", s)
	want := []string{"host", "unix:///run/x.sock", "400:abcd::1", "rack=r7", "sid1", "webserver"}
	got := strings.Split(strings.TrimSuffix(e.Search, "\x00"), "\x00")
	if !slices.Equal(got, want) {
		t.Errorf("search text is %q, want %q", got, want)
	}
}

// Of many that each take a node if nobody has it, one does.
func TestDecidingAndJoiningAreOneStep(t *testing.T) {
	for range 200 {
		tab := New()
		var took atomic.Int32
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				before, after, err := tab.Change("n", func(known *Entry) (record.State, error) {
					if known != nil {
						return record.State{}, errTaken
					}
					return record.State{LastSeen: int64(i + 1)}, nil
				})
				switch {
				case err == nil && before == nil && after != nil:
					took.Add(1)
				case !errors.Is(err, errTaken) || before != after:
					t.Errorf("%v, %v, %v", before, after, err)
				}
			})
		}
		all.Wait()
		if took.Load() != 1 || tab.Len() != 1 {
			t.Fatalf("%d took the node, %d entries", took.Load(), tab.Len())
		}
	}
}

var errTaken = errors.New("taken")

// What is refused leaves no trace of a node that was not known.
func TestRefusedChangeOfNobody(t *testing.T) {
	tab := New()
	for _, err := range []error{nil, errTaken} {
		before, after, got := tab.Change("n", func(*Entry) (record.State, error) { return record.State{}, err })
		if before != nil || after != nil || !errors.Is(got, err) || tab.Len() != 0 {
			t.Errorf("%v, %v, %v, %d entries", before, after, got, tab.Len())
		}
	}
}
