package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/iotest"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/backup"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// states are n states that differ, by node id.
func states(n int) map[string]record.State {
	out := map[string]record.State{}
	for i := range n {
		s := record.State{LastSeen: int64(1 + i)}
		out[fmt.Sprintf("n%03d", i)] = record.Join(s, s.Set(1_700_000_000_000, "m1", "ann", record.FieldDrain, "1"))
	}
	return out
}

func write(t testing.TB, states map[string]record.State) []byte {
	t.Helper()
	var b bytes.Buffer
	nodes, err := backup.Write(t.Context(), &b, func(yield func(string, record.State) bool) {
		for _, id := range slices.Sorted(maps.Keys(states)) {
			if !yield(id, states[id]) {
				return
			}
		}
	})
	if err != nil || nodes != len(states) {
		t.Fatalf("wrote %d nodes, %v", nodes, err)
	}
	return b.Bytes()
}

func ignore(string, record.State) error { return nil }

func TestReadGivesWhatWasWritten(t *testing.T) {
	for _, n := range []int{0, 1, 200} {
		want, got := states(n), map[string]record.State{}
		file := write(t, want)
		nodes, err := backup.Read(t.Context(), bytes.NewReader(file), func(node string, s record.State) error {
			got[node] = s
			return nil
		})
		if err != nil || nodes != n || len(got) != n {
			t.Fatalf("read %d nodes, %v", nodes, err)
		}
		if !bytes.Equal(write(t, got), file) {
			t.Errorf("%d nodes: what was read gives another file", n)
		}
	}
}

// A file that is damaged anywhere is refused.
func TestReadRefusesDamage(t *testing.T) {
	file := write(t, states(30))
	refused := func(what string, file []byte) {
		t.Helper()
		if _, err := backup.Read(t.Context(), bytes.NewReader(file), ignore); !errors.Is(err, backup.ErrUnreadable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for at := range file {
		damaged := bytes.Clone(file)
		damaged[at] ^= 0x10
		refused(fmt.Sprintf("byte %d turned", at), damaged)
		refused(fmt.Sprintf("cut off at %d", at), file[:at])
	}
	refused("something behind it", append(bytes.Clone(file), 0))
	var unordered bytes.Buffer
	if _, err := backup.Write(t.Context(), &unordered, func(yield func(string, record.State) bool) {
		_ = yield("b", record.State{LastSeen: 1}) && yield("a", record.State{LastSeen: 1})
	}); err != nil {
		t.Fatal(err)
	}
	refused("nodes that do not come by id", unordered.Bytes())
	refused("a newer version", bytes.Replace(file, []byte("backup 1\n"), []byte("backup 2\n"), 1))
}

// What is not the file's fault is not called so, and ends reading and writing.
func TestErrorsOfOthers(t *testing.T) {
	want := errors.New("another fault")
	all := states(20)
	file := write(t, all)
	broken := io.MultiReader(bytes.NewReader(file[:len(file)/2]), iotest.ErrReader(want))
	if _, err := backup.Read(t.Context(), broken, ignore); !errors.Is(err, want) || errors.Is(err, backup.ErrUnreadable) {
		t.Error("the reader's:", err)
	}
	if nodes, err := backup.Read(t.Context(), bytes.NewReader(file), func(string, record.State) error { return want }); nodes != 1 || !errors.Is(err, want) {
		t.Error("the taker's:", nodes, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := backup.Read(ended, bytes.NewReader(file), ignore); !errors.Is(err, context.Canceled) {
		t.Error("reading after the context has ended:", err)
	}
	if nodes, err := backup.Write(ended, io.Discard, maps.All(all)); nodes != 0 || !errors.Is(err, context.Canceled) {
		t.Error("writing after the context has ended:", nodes, err)
	}
	if _, err := backup.Write(t.Context(), brokenWriter{want}, maps.All(all)); !errors.Is(err, want) {
		t.Error("the writer's:", err)
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }
