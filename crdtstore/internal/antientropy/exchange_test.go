package antientropy

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-msgio"
	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// pipe is a stream to the other end in this process. It has no buffer, so two
// sides that write at once would wait for each other for ever.
type pipe struct {
	network.Stream // for what is not used here
	wire           net.Conn
}

func (p pipe) Read(b []byte) (int, error)    { return p.wire.Read(b) }
func (p pipe) Write(b []byte) (int, error)   { return p.wire.Write(b) }
func (p pipe) Close() error                  { return p.wire.Close() }
func (p pipe) Reset() error                  { return p.wire.Close() }
func (p pipe) CloseWrite() error             { return nil }
func (p pipe) SetDeadline(t time.Time) error { return p.wire.SetDeadline(t) }

func newPipe() (a, b pipe) {
	x, y := net.Pipe()
	return pipe{wire: x}, pipe{wire: y}
}

// side is a table, and what came in to it.
type side struct {
	*table.Table
	came int
}

func (s *side) take(node string, st record.State) {
	s.came++
	s.Join(node, st)
}

func account(boot uint64, host string, vms int) record.State {
	r := record.Report{NodeID: "n", Boot: boot, Seq: 1}
	r.Hostname = host
	for i := range vms {
		r.VMs = append(r.VMs, record.VM{SID: fmt.Sprintf("%0200d", i)})
	}
	s, err := record.Accept(record.State{}, r, record.Acceptance{Now: 1000})
	if err != nil {
		panic(err)
	}
	return s
}

// twoSides fills two tables that share a part.
func twoSides(rnd *rand.Rand, n int) (a, b *side) {
	a, b = &side{Table: table.New()}, &side{Table: table.New()}
	for i := range n {
		id := fmt.Sprintf("n%d", i)
		s := account(rnd.Uint64N(3)+1, fmt.Sprint(rnd.IntN(3)), rnd.IntN(3)*rnd.IntN(60))
		switch rnd.IntN(6) {
		case 0:
			a.Join(id, s)
		case 1:
			b.Join(id, s)
		case 2:
			a.Join(id, s)
			b.Join(id, account(rnd.Uint64N(3)+1, "other", 0))
		case 3:
			a.Join(id, s)
			b.Join(id, s)
			b.Join(id, s.Remove(5, "m", "", ""))
		default:
			a.Join(id, s)
			b.Join(id, s)
		}
	}
	return a, b
}

// differing compares two tables node by node.
func differing(a, b *table.Table) []string {
	nodes := map[string]bool{}
	for _, t := range []*table.Table{a, b} {
		for e := range t.All() {
			nodes[e.ID] = true
		}
	}
	var out []string
	for id := range nodes {
		x, y := a.Get(id), b.Get(id)
		if x == nil || y == nil || !x.State.Equal(y.State) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func merge(t *testing.T, a, b *side) int {
	t.Helper()
	p, q := newPipe()
	done := make(chan error)
	go func() { done <- Serve(t.Context(), q, b.Table, b.take) }()
	n, err := Merge(t.Context(), p, a.Table, a.take)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMergeMakesEqual(t *testing.T) {
	for seed := range uint64(25) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		a, b := twoSides(rnd, rnd.IntN(200))
		want := differing(a.Table, b.Table)
		if n := merge(t, a, b); n != len(want) {
			t.Errorf("seed %d: %d differed, want %d", seed, n, len(want))
		}
		if left := differing(a.Table, b.Table); len(left) > 0 {
			t.Errorf("seed %d: %q differ still", seed, left)
		}
		if a.came > len(want) || b.came > len(want) {
			t.Errorf("seed %d: %d and %d states came for %d differences", seed, a.came, b.came, len(want))
		}
		if n := merge(t, a, b); n != 0 {
			t.Errorf("seed %d: %d differ once more", seed, n)
		}
	}
}

func TestLookChangesNothing(t *testing.T) {
	for seed := range uint64(15) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		a, b := twoSides(rnd, rnd.IntN(100))
		want := differing(a.Table, b.Table)
		before, _ := a.Digest()
		for _, limit := range []int{0, 3, 1000} {
			p, q := newPipe()
			done := make(chan error)
			go func() { done <- Serve(t.Context(), q, b.Table, b.take) }()
			list, n, err := Look(t.Context(), p, a.Table, limit)
			if err := errors.Join(err, <-done); err != nil {
				t.Fatal(err)
			}
			if n != len(want) || len(list) != min(limit, n) {
				t.Errorf("seed %d: %d of %d listed, want %d", seed, len(list), n, len(want))
			}
			for _, d := range list {
				x, y := record.State{}, record.State{}
				if e := a.Get(d.Node); e != nil {
					x = e.State
				}
				if e := b.Get(d.Node); e != nil {
					y = e.State
				}
				if !d.Self.Equal(x) || !d.Other.Equal(y) || x.Equal(y) {
					t.Errorf("seed %d: %+v", seed, d)
				}
			}
		}
		if after, _ := a.Digest(); after != before || a.came+b.came > 0 {
			t.Errorf("seed %d: something was changed", seed)
		}
	}
}

func frame(b []byte) []byte { return protowire.AppendBytes(nil, b) }

// TestLiars answer a comparison, or ask for one, with what they should not.
func TestLiars(t *testing.T) {
	s := &side{Table: table.New()}
	s.Join("n", account(1, "x", 0))
	ask := frame(append([]byte{modeMerge}, make([]byte, table.Buckets*digestSize)...))
	all := frame(bytes.Repeat([]byte{1}, table.Buckets))
	entry := func(node string, value []byte) []byte {
		return frame(protowire.AppendBytes(protowire.AppendString(nil, node), value))
	}
	end := frame(nil)
	for name, says := range map[string][][]byte{
		"nothing":             {},
		"an empty ask":        {end},
		"too few buckets":     {frame(make([]byte, 17))},
		"an unknown mode":     {frame(append([]byte{9}, make([]byte, table.Buckets*digestSize)...))},
		"junk for a state":    {ask, entry("m", []byte("junk")), end},
		"half an entry":       {ask, frame([]byte{5, 'a'}), end},
		"a node without name": {ask, entry("", account(1, "x", 0).Encode()), end},
		"a bad node id":       {ask, entry("a/b", account(1, "x", 0).Encode()), end},
		"no end":              {ask, entry("m", account(1, "x", 0).Encode())},
		"a huge frame":        {ask, protowire.AppendVarint(nil, maxFrame+1)},
	} {
		if err := say(t, says, func(p pipe) error { return Serve(t.Context(), p, s.Table, s.take) }); err == nil {
			t.Errorf("served: %s", name)
		}
	}
	for name, says := range map[string][][]byte{
		"nothing":           {},
		"too few buckets":   {frame([]byte{1})},
		"a short digest":    {all, entry("n", []byte{1}), end},
		"a bad node id":     {all, entry("..//", make([]byte, digestSize)), end},
		"junk for a digest": {all, frame([]byte{0xff}), end},
		"junk for a state":  {all, entry("m", make([]byte, digestSize)), end, entry("m", []byte("junk")), end},
		"no states":         {all, entry("m", make([]byte, digestSize)), end},
	} {
		err := say(t, says, func(p pipe) error {
			_, err := Merge(t.Context(), p, s.Table, s.take)
			return err
		})
		if err == nil {
			t.Errorf("merged: %s", name)
		}
	}
	if s.Get("n").Hostname != "x" || s.Get("a/b") != nil || s.Get("") != nil {
		t.Error("junk got in")
	}
}

// say runs one side while the other says its lines and listens to nothing.
func say(t *testing.T, lines [][]byte, f func(pipe) error) error {
	t.Helper()
	p, q := newPipe()
	go func() { _, _ = io.Copy(io.Discard, q) }()
	go func() {
		for _, l := range lines {
			if _, err := q.Write(l); err != nil {
				return
			}
		}
		_ = q.Close()
	}()
	return f(p)
}

func TestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, q := newPipe()
	defer q.Close()
	done := make(chan error)
	go func() { done <- Serve(ctx, p, table.New(), nil) }()
	cancel()
	if err := <-done; err == nil {
		t.Error("no error")
	}
}

func FuzzStates(f *testing.F) {
	good := protowire.AppendBytes(protowire.AppendString(nil, "n"), account(1, "x", 2).Encode())
	f.Add(good)
	f.Add([]byte{1, 'n', 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		got := &side{Table: table.New()}
		c := &conn{s: pipe{wire: quiet{}}, r: msgio.NewVarintReaderSize(bytes.NewReader(append(frame(in), 0)), maxFrame)}
		_ = c.states(func(node string, s record.State) {
			if err := record.ValidNodeID(node); err != nil {
				t.Error(err)
			}
			got.take(node, s)
		})
	})
}

type quiet struct{ net.Conn }

func (quiet) SetDeadline(time.Time) error { return nil }

// What a master makes up of a node that signs is not taken, whichever side asked.
func TestForgedStatesAreNotTaken(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	genuine := func(boot uint64, host string) record.State {
		r := record.Report{NodeID: "n", Boot: boot, Seq: 1}
		r.Hostname = host
		r.Sign(key)
		s, err := record.Accept(record.State{}, r, record.Acceptance{Now: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	forged := genuine(2, "genuine")
	forged.Claims[0].Profile.Body = genuine(2, "forged").Claims[0].Profile.Body
	for name, serves := range map[string]bool{"served": true, "sent": false} {
		honest, forger := &side{Table: table.New()}, &side{Table: table.New()}
		honest.Join("n", genuine(1, "genuine"))
		forger.Join("n", forged)
		forger.Join("m", forged) // the node it was signed for is another
		if serves {
			merge(t, honest, forger)
		} else {
			merge(t, forger, honest)
		}
		if honest.came == 0 {
			t.Fatalf("%s: nothing came", name)
		}
		if got := honest.Get("n").Node(); got.Hostname != "genuine" {
			t.Errorf("%s: the node is shown as %q", name, got.Hostname)
		}
		if e := honest.Get("m"); e != nil && (e.Node().Signed || e.Node().Hostname != "") {
			t.Errorf("%s: a node was made up: %+v", name, e.Node())
		}
	}
}

// A master that runs an older program may send a state that is too large to be read. It is
// passed over, the others are taken, and the error tells of it.
func TestTooLargeAStateIsPassedOver(t *testing.T) {
	var large record.State
	for i := range 12 {
		large.Claims = append(large.Claims, record.Claim{Key: fmt.Sprintf("%032d", i), VMs: record.Account{Body: string(make([]byte, 256<<10))}})
	}
	older, honest := &side{Table: table.New()}, &side{Table: table.New()}
	older.Join("large", large)
	older.Join("z", account(1, "z", 0))
	honest.Join("a", account(1, "a", 0))
	p, q := newPipe()
	done := make(chan error)
	go func() { done <- Serve(t.Context(), q, older.Table, older.take) }()
	_, err := Merge(t.Context(), p, honest.Table, honest.take)
	if served := <-done; served != nil {
		t.Fatal(served)
	}
	if !errors.Is(err, ErrMessage) {
		t.Errorf("nothing tells of it: %v", err)
	}
	if honest.Get("z") == nil || older.Get("a") == nil || honest.Get("large") != nil {
		t.Errorf("the other states were not exchanged, or the large one was")
	}
}
