package crdtstore_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/golden"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// goldenRecords are fixed records of every kind: a plain node, one that is signed,
// drained and labelled, a removed one, and one that came back.
func goldenRecords(t *testing.T) map[string]record.State {
	t.Helper()
	const now = 1_700_000_000_000
	accept := func(s record.State, r crdtstore.Report, at int64) record.State {
		t.Helper()
		news, err := record.Accept(s, r, record.Acceptance{Now: now + at})
		if err != nil {
			t.Fatal(err)
		}
		return record.Join(s, news)
	}
	signed := report("signed", 3, 4)
	signed.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	s := accept(record.State{}, signed, 0)
	s = record.Join(s, s.Set(now+1, "m1", "ann", record.FieldDrain, "1"))
	s = record.Join(s, s.Set(now+2, "m2", "bob", record.FieldLabel+"zone", "=a"))
	removed := accept(record.State{}, report("removed", 1, 1), 3)
	removed = record.Join(removed, firstSchema(removed.Remove(now+4, "m1", "ann", "sold"), 1))
	back := accept(record.State{}, report("back", 1, 1), 5)
	back = record.Join(back, firstSchema(back.Remove(now+6, "m2", "bob", ""), 1))
	return map[string]record.State{
		"plain":   accept(record.State{}, report("plain", 1, 9), 7),
		"signed":  s,
		"removed": removed,
		"back":    accept(back, report("back", 2, 1), 8),
	}
}

// firstSchema is a removal as it was written once: for all claims, up to a boot.
func firstSchema(s record.State, boot uint64) record.State {
	s.Claims, s.Removal.Boot = nil, boot
	return s
}

// What one release has written, every later one reads, and writes the same.
func TestGoldenBackup(t *testing.T) {
	file := filepath.Join("testdata", "backup-v1.golden")
	from := open(t, t.TempDir())
	for node, s := range goldenRecords(t) {
		from.Inject(node, s)
	}
	written := func(s *crdtstore.Store) []byte {
		t.Helper()
		var b bytes.Buffer
		if info, err := s.Backup(t.Context(), &b); err != nil || info.Nodes != 4 {
			t.Fatalf("backup of %d nodes, %v", info.Nodes, err)
		}
		return b.Bytes()
	}
	if *golden.Update {
		if err := os.WriteFile(file, written(from), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; write it with go test -run Golden -update", err)
	}
	if !bytes.Equal(written(from), want) {
		t.Error("the same records give another backup; people keep backups for long")
	}
	to := open(t, t.TempDir())
	if info, err := to.Restore(t.Context(), bytes.NewReader(want)); err != nil || info.Nodes != 4 || info.Changed != 4 {
		t.Fatalf("restored %+v, %v", info, err)
	}
	if !bytes.Equal(written(to), want) {
		t.Error("what was restored gives another backup")
	}
	if n, err := to.Node("signed"); err != nil || !n.Signed || !n.Drained || n.Labels["zone"] != "a" || n.Hostname != "host-signed" {
		t.Errorf("%+v, %v", n, err)
	}
	if n, err := to.Node("removed"); err != nil || n.RemovedAt == nil {
		t.Errorf("%+v, %v", n, err)
	}
	if n, err := to.Node("back"); err != nil || n.RemovedAt != nil || n.Boot != 2 {
		t.Errorf("%+v, %v", n, err)
	}
}

// A backup of a newer version, or one with records of a newer schema, is refused as a
// whole, and the store is as it was.
func TestBackupOfANewerVersion(t *testing.T) {
	state := record.State{LastSeen: 1}.Encode()
	state[0] = record.SchemaVersion + 1
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.Report(t.Context(), report("here", 1, 1)); err != nil {
		t.Fatal(err)
	}
	before, files := s.Masters()[0].Digest, list(t, dir)
	for version, want := range map[string]string{
		"1":  "schema version 3", // the file can be read, what is in it cannot
		"2":  "use a newer program",
		"10": `version "10"`,
	} {
		b := []byte("hero_explorer backup " + version + "\n")
		b = protowire.AppendBytes(b, append(protowire.AppendString(nil, "known"), record.State{LastSeen: 1}.Encode()...))
		b = protowire.AppendBytes(b, append(protowire.AppendString(nil, "later"), state...))
		b = binary.BigEndian.AppendUint64(append(b, 0), 2)
		sum := sha256.Sum256(b)
		if _, err := s.Restore(t.Context(), bytes.NewReader(append(b, sum[:]...))); !errors.Is(err, crdtstore.ErrBackup) || !strings.Contains(err.Error(), want) {
			t.Errorf("version %s: %v, want %s", version, err, want)
		}
	}
	if after := s.Masters()[0].Digest; after != before {
		t.Error("something was restored")
	}
	if now := list(t, dir); !slices.Equal(now, files) {
		t.Errorf("in the directory are %q, were %q", now, files)
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
