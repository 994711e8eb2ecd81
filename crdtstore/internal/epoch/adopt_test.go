package epoch

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// adopt moves a master to an epoch, without asserting anything there.
func (m *master) adopt(number uint64) {
	m.t.Helper()
	m.number.Store(number)
	if err := m.Adopt(m.t.Context(), number, 0); err != nil {
		m.t.Fatal(err)
	}
}

func (m *master) missing() []string {
	m.t.Helper()
	out, err := m.Missing(m.t.Context(), maps.All(m.table))
	if err != nil {
		m.t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func (m *master) dirs() []string {
	m.t.Helper()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestANewEpochIsFilledAndTheOldOneRetired(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	for i := range 5 {
		for at := range int64(10) {
			m.write(fmt.Sprintf("n%d", i), seen(at+1))
		}
	}
	if s := m.Stats(); s.Entries != 50 || s.Number != 1 || s.Old != 0 {
		t.Fatalf("before: %+v", s)
	}
	m.adopt(2)
	if got := m.missing(); len(got) != 5 {
		t.Fatalf("an empty epoch lacks %v, want all five", got)
	}
	m.write("n0", record.State{})
	m.write("n1", seen(99)) // a change while the epoch is being filled
	if got := m.missing(); !slices.Equal(got, []string{"n2", "n3", "n4"}) {
		t.Fatalf("missing %v", got)
	}
	// A crash now finds both directories, and loses nothing.
	c := m.crashed()
	if !maps.EqualFunc(c.table, m.table, record.State.Equal) || c.Number() != 2 {
		t.Fatalf("after a crash: %+v in epoch %d, had %+v", c.table, c.Number(), m.table)
	}
	for _, node := range m.missing() {
		m.write(node, record.State{})
	}
	if got := m.missing(); len(got) != 0 {
		t.Fatalf("still missing %v", got)
	}
	if err := m.Retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.dirs(); !slices.Equal(got, []string{"0000000002"}) {
		t.Errorf("left on disk: %v", got)
	}
	if s := m.Stats(); s.Entries != 5 || s.Old != 0 {
		t.Errorf("after: %+v", s)
	}
	table := maps.Clone(m.table)
	if r := m.reopen(); !maps.EqualFunc(r.table, table, record.State.Equal) || r.Stats().Entries != 5 {
		t.Errorf("after reopening: %+v, %+v; had %+v", r.table, r.Stats(), table)
	}
}

// Two sides of a split open the same number; when they meet, two roots are two
// heads like any other.
func TestTwoRootsOfOneEpochMerge(t *testing.T) {
	a, b := start(t, "a", t.TempDir()), start(t, "b", t.TempDir())
	a.write("n", seen(1))
	if err := b.take(a.all()...); err != nil {
		t.Fatal(err)
	}
	a.adopt(2)
	b.adopt(2)
	a.write("n", seen(5))
	a.write("only-a", seen(1))
	b.write("n", seen(7))
	if err := errors.Join(a.take(b.all()...), b.take(a.all()...)); err != nil {
		t.Fatal(err)
	}
	if !maps.EqualFunc(a.table, b.table, record.State.Equal) {
		t.Errorf("tables differ: %+v, %+v", a.table, b.table)
	}
	if got := append(a.missing(), b.missing()...); len(got) != 0 {
		t.Errorf("missing %v", got)
	}
	a.write("n", seen(9)) // builds on both roots
	if heads := a.Heads(); len(heads) != 1 {
		t.Errorf("%d heads", len(heads))
	}
}

func TestAdoptRefusesAndIgnores(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	m.write("n", seen(1))
	old := m.all()
	m.adopt(5)
	m.number.Store(5)
	for _, n := range []uint64{0, 1, 5} {
		if err := m.Adopt(t.Context(), n, 0); err != nil || m.Number() != 5 {
			t.Errorf("adopting %d: %v, in epoch %d", n, err, m.Number())
		}
	}
	if err := m.Adopt(t.Context(), 1<<63, 0); !errors.Is(err, ErrEpoch) || m.Number() != 5 {
		t.Errorf("a leap: %v, in epoch %d", err, m.Number())
	}
	if err := m.Deliver(t.Context(), 1, old); !errors.Is(err, ErrEpoch) {
		t.Errorf("blocks of an old epoch: %v", err)
	}
	if got := m.missing(); !slices.Equal(got, []string{"n"}) {
		t.Errorf("missing %v", got)
	}
}

func TestOpenRefusesANewerFormat(t *testing.T) {
	dir := t.TempDir()
	m := start(t, "m1", dir)
	m.write("n", seen(1))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "0000000001", "epoch.json")
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(`{"version":2,"number":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	o := m.opts
	if _, err := Open(t.Context(), o); err == nil {
		t.Fatal("a format of the future was opened")
	}
	if err := os.WriteFile(path, was, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(t.Context(), o); err != nil {
		t.Errorf("nothing should be lost: %v", err)
	} else if err := l.Close(); err != nil {
		t.Error(err)
	}
}
