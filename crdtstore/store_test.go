package crdtstore_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func open(t testing.TB, dir string) *crdtstore.Store {
	t.Helper()
	s, err := crdtstore.Open(t.Context(), crdtstore.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return s
}

func report(id string, boot, seq uint64) crdtstore.Report {
	r := crdtstore.Report{NodeID: id, Boot: boot, Seq: seq}
	r.Hostname = "host-" + id
	r.Total = record.Capacity{CRU: 8, MRU: 32 << 30}
	r.VMs = []crdtstore.VM{{SID: "vm-" + id, Name: "web", State: "running"}}
	return r
}

func TestReopenHasEverything(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 100 {
		if _, err := s.Report(t.Context(), report(fmt.Sprintf("n%03d", i), 1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Drain(t.Context(), "n001", true, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "n002", "test", "gone"); err != nil {
		t.Fatal(err)
	}
	before := s.Masters()[0].Digest
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir)
	if got := s.Masters()[0].Digest; got != before {
		t.Errorf("digest %s after reopening, was %s", got, before)
	}
	page, err := s.Nodes(crdtstore.NodeQuery{Limit: 1000})
	if err != nil || page.Total != 99 {
		t.Fatalf("%d nodes, %v", page.Total, err)
	}
	n, err := s.Node("n001")
	if err != nil || !n.Drained || n.Hostname != "host-n001" || n.VMs[0].SID != "vm-n001" {
		t.Errorf("n001 is %+v, %v", n, err)
	}
	if _, err := s.Report(t.Context(), report("n002", 1, 2)); !errors.As(err, new(*crdtstore.RefusedError)) {
		t.Errorf("a removed boot was taken back: %v", err)
	}
	if _, err := s.Report(t.Context(), report("n002", 2, 1)); err != nil {
		t.Errorf("a new boot was refused: %v", err)
	}
}

func TestPagesCoverEverythingOnce(t *testing.T) {
	s := open(t, t.TempDir())
	for i := range 57 {
		r := report(fmt.Sprintf("n%03d", i), 1, 1)
		r.Total.CRU = float64(i % 5)
		if _, err := s.Report(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, sort := range []string{"", "-node_id", "free_cru", "-free_cru", "hostname", "-last_seen"} {
		seen := map[string]bool{}
		q := crdtstore.NodeQuery{Sort: sort, Limit: 10}
		for {
			page, err := s.Nodes(q)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range page.Nodes {
				if seen[n.NodeID] {
					t.Fatalf("sort %q: %s twice", sort, n.NodeID)
				}
				seen[n.NodeID] = true
			}
			if page.NextCursor == "" {
				break
			}
			q.Cursor = page.NextCursor
		}
		if len(seen) != 57 {
			t.Errorf("sort %q: %d nodes over all pages, want 57", sort, len(seen))
		}
	}
	if _, err := s.Nodes(crdtstore.NodeQuery{Cursor: "nonsense"}); !errors.Is(err, crdtstore.ErrCursor) {
		t.Errorf("a bad cursor gave %v", err)
	}
}

func TestWatchTellsWhatChanged(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cursor := s.Cursor()
	if _, err := s.Report(ctx, report("a", 1, 1)); err != nil {
		t.Fatal(err)
	}
	r := report("a", 1, 2)
	r.VMs = nil
	if _, err := s.Report(ctx, r); err != nil {
		t.Fatal(err)
	}
	var got []string
	for ev, err := range s.Watch(ctx, cursor) {
		if err != nil {
			t.Fatal(err)
		}
		switch ev.Kind {
		case crdtstore.NodeChange:
			got = append(got, "node "+ev.Node.NodeID)
		case crdtstore.VMChange:
			got = append(got, "vm "+ev.VM.SID+" "+ev.VM.State)
		}
		if len(got) == 4 {
			break
		}
	}
	want := []string{"node a", "vm vm-a running", "node a", "vm vm-a deleted"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events %q, want %q", got, want)
	}
	for _, err := range s.Watch(ctx, "other-1") {
		if !errors.Is(err, crdtstore.ErrCursor) {
			t.Errorf("a cursor of another run gave %v", err)
		}
	}
}

func TestBeatAsksForWhatItDoesNotKnow(t *testing.T) {
	s := open(t, t.TempDir())
	if r, err := s.Beat(crdtstore.Beat{NodeID: "a", Boot: 1, Seq: 1}); r.Accepted || !r.Register || err != nil {
		t.Errorf("unknown node: %+v, %v", r, err)
	}
	if _, err := s.Report(t.Context(), report("a", 1, 1)); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Beat(crdtstore.Beat{NodeID: "a", Boot: 1, Seq: 2}); !r.Accepted || r.Register || err != nil {
		t.Errorf("known node: %+v, %v", r, err)
	}
	if r, err := s.Beat(crdtstore.Beat{NodeID: "a", Boot: 2, Seq: 1}); !r.Accepted || !r.Register || err != nil {
		t.Errorf("new boot: %+v, %v", r, err)
	}
	if _, err := s.Remove(t.Context(), "a", "test", ""); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Beat(crdtstore.Beat{NodeID: "a", Boot: 1, Seq: 9}); !errors.As(err, new(*record.RefusedError)) {
		t.Errorf("removed node: %+v, %v", r, err)
	}
}

// Config.RequireSigned is what decides.
func TestRequireSigned(t *testing.T) {
	s, err := crdtstore.Open(t.Context(), crdtstore.Config{Dir: t.TempDir(), RequireSigned: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	_, err = s.Report(t.Context(), report("plain", 1, 1))
	if refused, ok := errors.AsType[*crdtstore.RefusedError](err); !ok || refused.Reason != record.RefusedUnsigned {
		t.Errorf("an unsigned report: %v", err)
	}
	if _, err := s.Node("plain"); !errors.Is(err, crdtstore.ErrNotFound) {
		t.Errorf("an unsigned node is known: %v", err)
	}
	signed := report("signed", 1, 1)
	signed.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize)))
	if _, err := s.Report(t.Context(), signed); err != nil {
		t.Errorf("a signed report: %v", err)
	}
}

// The removal of one key's account bars nobody else, however great its boot was.
func TestRemovalBarsNoOtherKey(t *testing.T) {
	s := open(t, t.TempDir())
	say := func(key byte, boot uint64) error {
		r := report("n", boot, 1)
		r.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{key}, ed25519.SeedSize)))
		_, err := s.Report(t.Context(), r)
		return err
	}
	if err := say(1, 1<<62); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "n", "ann", "an impostor"); err != nil {
		t.Fatal(err)
	}
	if b, err := s.Beat(crdtstore.Beat{NodeID: "n", Boot: 5, Seq: 2}); !b.Register || err != nil {
		t.Errorf("a beat of another boot: %+v, %v", b, err)
	}
	if b, err := s.Beat(crdtstore.Beat{NodeID: "n", Boot: 1 << 62, Seq: 2}); err == nil {
		t.Errorf("a beat of the removed boot: %+v, %v", b, err)
	}
	if refused, ok := errors.AsType[*crdtstore.RefusedError](say(1, 1<<62)); !ok || refused.Reason != record.RefusedRemoved {
		t.Errorf("the removed boot: %v", refused)
	}
	if err := say(2, 5); err != nil {
		t.Fatalf("another key: %v", err)
	}
	if n, err := s.Node("n"); err != nil || n.RemovedAt != nil || n.Boot != 5 || n.Conflict != nil {
		t.Errorf("shown %+v, %v", n, err)
	}
	if refused, ok := errors.AsType[*crdtstore.RefusedError](say(1, 1<<62+1)); !ok || refused.Reason != record.RefusedOtherKey {
		t.Errorf("the removed key again: %v", refused)
	}
}

// What would not be kept is refused, by the name of its field, and nothing changes.
func TestTooLongWordsAreRefused(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.Report(t.Context(), report("n", 1, 1)); err != nil {
		t.Fatal(err)
	}
	before := s.Masters()[0].Digest
	long := strings.Repeat("x", record.MaxBy+1)
	for field, do := range map[string]func() error{
		"by":     func() error { _, err := s.Drain(t.Context(), "n", true, long); return err },
		"reason": func() error { _, err := s.Remove(t.Context(), "n", "ann", long); return err },
	} {
		if at, ok := errors.AsType[*crdtstore.FieldError](do()); !ok || at.Field != field {
			t.Errorf("%s: %v", field, at)
		}
	}
	if s.Masters()[0].Digest != before {
		t.Error("something has changed")
	}
}
