package crdtstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

func filled(t *testing.T) *crdtstore.Store {
	t.Helper()
	s := open(t, t.TempDir())
	for i := range 30 {
		if _, err := s.Report(t.Context(), report(fmt.Sprintf("n%02d", i), 1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Drain(t.Context(), "n01", true, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "n02", "test", ""); err != nil {
		t.Fatal(err)
	}
	return s
}

func backup(t *testing.T, s *crdtstore.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if info, err := s.Backup(t.Context(), &b); err != nil || info.Nodes != 30 {
		t.Fatalf("backup of %d nodes, %v", info.Nodes, err)
	}
	return b.Bytes()
}

func digestOf(s *crdtstore.Store) string { return s.Masters()[0].Digest }

func TestRestoreGivesEqualRecords(t *testing.T) {
	from := filled(t)
	file := backup(t, from)
	for range 2 {
		dir := t.TempDir()
		to := open(t, dir)
		for _, changed := range []int{30, 0} { // the second time there is no news
			info, err := to.Restore(t.Context(), bytes.NewReader(file))
			if err != nil || info.Nodes != 30 || info.Changed != changed {
				t.Fatalf("restored %+v, %v; want %d changed", info, err, changed)
			}
		}
		if digestOf(to) != digestOf(from) {
			t.Error("digests differ after restoring")
		}
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
		if digestOf(open(t, dir)) != digestOf(from) {
			t.Error("digests differ after reopening: not all was on disk")
		}
	}
}

// A backup neither brings a removed node back nor rolls a newer account back.
func TestRestoreMerges(t *testing.T) {
	s := filled(t)
	file := backup(t, s)
	newer := report("n05", 1, 7)
	newer.Hostname = "newer"
	if _, err := s.Report(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "n06", "test", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Drain(t.Context(), "n01", false, "test"); err != nil {
		t.Fatal(err)
	}
	before := digestOf(s)
	if _, err := s.Restore(t.Context(), bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	if digestOf(s) != before {
		t.Error("an older backup changed what was newer")
	}
}

// What is not the file's fault is not called so.
func TestRestoreTellsWhyReadingFailed(t *testing.T) {
	file := backup(t, filled(t))
	to := open(t, t.TempDir())
	broken := errors.New("the line broke")
	r := io.MultiReader(bytes.NewReader(file[:len(file)/2]), iotest.ErrReader(broken))
	if _, err := to.Restore(t.Context(), r); !errors.Is(err, broken) || errors.Is(err, crdtstore.ErrBackup) {
		t.Errorf("got %v", err)
	}
}
