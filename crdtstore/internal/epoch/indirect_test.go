package epoch

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	pb "github.com/ipfs/go-ds-crdt/pb"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// TestValuesAreKeptOnce writes random blocks, forks and keys that a block writes
// twice among them, and compares what is read with the rule of go-ds-crdt: the
// highest block wins, of several the greatest bytes.
func TestValuesAreKeptOnce(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 11))
		m := start(t, "m1", t.TempDir())
		type winner struct {
			height uint64
			value  []byte
		}
		want := map[string]winner{}
		heights := map[cid.Cid]uint64{}
		var tops []cid.Cid
		for range 30 {
			var links []cid.Cid
			below := uint64(0)
			for range min(len(tops), 1+rnd.IntN(2)) {
				l := tops[max(0, len(tops)-1-rnd.IntN(3))]
				if !slices.Contains(links, l) {
					links, below = append(links, l), max(below, heights[l])
				}
			}
			d := &pb.Delta{Priority: below + 1}
			for range 1 + rnd.IntN(5) {
				key := fmt.Sprintf("/k%d", rnd.IntN(6))
				value := make([]byte, rnd.IntN(3)*rnd.IntN(20))
				for i := range value {
					value[i] = []byte{inBlock, 1, 'x', inVerifiedBlock, verbatim}[rnd.IntN(5)]
				}
				d.Elements = append(d.Elements, &pb.Element{Key: key, Value: value})
				if w := want[key]; below+1 > w.height || below+1 == w.height && bytes.Compare(value, w.value) > 0 {
					want[key] = winner{below + 1, value}
				}
			}
			b := block(t, d, links...)
			heights[b.Cid] = below + 1
			tops = append(tops, b.Cid)
			if err := m.Deliver(t.Context(), 1, []dag.Block{b}); err != nil {
				t.Fatal(err)
			}
		}
		check := func(m *master) {
			t.Helper()
			for key, w := range want {
				if got, err := m.cur.crdt.Get(t.Context(), ds.NewKey(key)); err != nil || !bytes.Equal(got, w.value) {
					t.Fatalf("seed %d: %s is %x, %v, want %x", seed, key, got, err, w.value)
				}
			}
			got := map[string]string{}
			results, err := m.cur.look(t.Context())
			if err == nil {
				err = m.cur.each(t.Context(), results, func(key string, value []byte, _ bool) { got[key] = string(value) })
			}
			if err != nil {
				t.Fatal(err)
			}
			for key, w := range want {
				if got[key] != string(w.value) {
					t.Fatalf("seed %d: reading all, %s is %x, want %x", seed, key, got[key], w.value)
				}
			}
			if len(got) != len(want) {
				t.Fatalf("seed %d: keys %q", seed, slices.Sorted(maps.Keys(got)))
			}
		}
		check(m)
		check(m.reopen())
	}
}

// TestValuesAreShort: what is stored of a value is the name of its block.
func TestValuesAreShort(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	for i := range 20 {
		m.write(fmt.Sprint("n", i%7), account(1, uint64(i+1), "a host that has quite a long name, as they have"))
	}
	results, err := m.cur.base.Query(t.Context(), query.Query{Prefix: values})
	if err != nil {
		t.Fatal(err)
	}
	defer results.Close()
	n := 0
	for r := range results.Next() {
		if _, ok := valueKey(r.Key); ok {
			if n++; len(r.Value) != 35 {
				t.Errorf("%s is stored in %d bytes", r.Key, len(r.Value))
			}
		}
	}
	if n != 7 {
		t.Errorf("%d values are stored", n)
	}
}

// signedBy is the state of a node that has signed its account.
func signedBy(t *testing.T, node string, key ed25519.PrivateKey) record.State {
	t.Helper()
	r := record.Report{NodeID: node, Boot: 1, Seq: 1}
	r.Hostname = node
	r.Sign(key)
	s, err := record.Accept(record.State{}, r, record.Acceptance{Now: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSignaturesAreLookedAtOnce: what was found good, or made here, is marked so on disk,
// and what was not is looked at again with every start: it never comes back.
func TestSignaturesAreLookedAtOnce(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	good, forged := signedBy(t, "good", key), signedBy(t, "forged", key)
	forged.Claims = slices.Clone(forged.Claims)
	forged.Claims[0].Profile.Body = good.Claims[0].Profile.Body + "\x00"
	block := func(height uint64, links []cid.Cid, states map[string]record.State) dag.Block {
		var list []dag.Element
		for node, s := range states {
			list = append(list, dag.Element{Key: StateKey(node, Writer("m2", 1)), Value: s.Encode()})
		}
		b, err := dag.New(list, height, links)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	m := start(t, "m1", t.TempDir())
	m.write("own", signedBy(t, "own", key))
	head := m.Heads()
	both := block(2, head, map[string]record.State{"beside": signedBy(t, "beside", key), "forged": forged})
	alone := block(3, []cid.Cid{both.Cid}, map[string]record.State{"good": good})
	if err := m.take(both, alone); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		marks := map[string]bool{}
		results, err := m.cur.look(t.Context())
		if err == nil {
			err = m.cur.each(t.Context(), results, func(key string, _ []byte, good bool) {
				node, _, _ := SplitKey(key)
				marks[node] = good
			})
		}
		if want := map[string]bool{"own": true, "beside": false, "forged": false, "good": true}; err != nil || !maps.Equal(marks, want) {
			t.Errorf("marked are %v, want %v; %v", marks, want, err)
		}
		for _, node := range []string{"own", "beside", "good"} {
			if len(m.table[node].Claims) != 1 {
				t.Errorf("of %s there is %+v", node, m.table[node])
			}
		}
		if len(m.table["forged"].Claims) > 0 && !m.table["forged"].Claims[0].Profile.IsZero() {
			t.Errorf("what was forged is taken: %+v", m.table["forged"])
		}
		m = m.reopen()
	}
}

// TestTallyIsKept: how much was written is known after a restart and a crash.
func TestTallyIsKept(t *testing.T) {
	a, b := start(t, "m1", t.TempDir()), start(t, "m2", t.TempDir())
	size := 0
	for i := range 10 {
		s := account(1, uint64(i+1), "a")
		size += len(s.Encode())
		a.write("n", s)
	}
	if err := b.take(a.all()...); err != nil {
		t.Fatal(err)
	}
	for what, m := range map[string]*master{
		"the author": a, "another master": b, "the author after a crash": a.crashed(), "another after a restart": b.reopen(),
	} {
		if s := m.Stats(); s.Entries != 10 || s.Written != uint64(size) {
			t.Errorf("%s counts %d entries of %d bytes, want 10 of %d", what, s.Entries, s.Written, size)
		}
	}
}

// TestLostValueIsDamage: a block that a value is to be found in is gone. Nothing
// older is taken for that value.
func TestLostValueIsDamage(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	m.write("n", seen(1))
	m.write("n", seen(2))
	m.write("o", seen(3))
	if err := m.cur.base.Delete(t.Context(), blockKey(m.all()[1].Cid)); err != nil {
		t.Fatal(err)
	}
	dir := m.image()
	if _, err := tryStart(t, Options{Dir: dir, Master: "m1"}); !errors.Is(err, ErrDamaged) {
		t.Error("opened alone:", err)
	}
	again, err := tryStart(t, Options{Dir: dir, Master: "m1", Elsewhere: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]record.State{"o": seen(3)}; !equalTables(again.table, want) || len(again.SetAside()) != 1 {
		t.Errorf("holds %v, set aside %q", again.table, again.SetAside())
	}
}
