package crdtstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	ma "github.com/multiformats/go-multiaddr"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/seam"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

// A directory is that of one store, by whatever path it is named.
func TestOneStoreADirectory(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "dätä 100%")
	s := open(t, dir)
	if _, err := s.Report(t.Context(), report("n", 1, 1)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(above, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	t.Chdir(above)
	for _, path := range []string{dir, dir + "/", "./" + filepath.Base(dir), link, link + "/../" + filepath.Base(dir)} {
		other, err := crdtstore.Open(t.Context(), crdtstore.Config{Dir: path})
		if err == nil {
			t.Errorf("%s was opened a second time", path)
			_ = other.Close()
		} else if !strings.Contains(err.Error(), "in use by another store") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := crdtstore.Open(t.Context(), crdtstore.Config{Dir: link})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Node("n"); err != nil {
		t.Errorf("through a link: %v", err)
	}
}

// A relative directory is the one it was when the store was opened.
func TestRelativeDirectoryStays(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	t.Chdir(first)
	s, err := crdtstore.Open(t.Context(), crdtstore.Config{Dir: "data", EpochBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(second)
	if _, err := s.Report(t.Context(), report("n", 1, 1)); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(second); len(left) > 0 {
		t.Errorf("the store went on in the other directory: %v", left)
	}
}

// A path that cannot be a data directory is named, with the field, and nothing is made.
func TestDirectoryThatCannotBe(t *testing.T) {
	above := t.TempDir()
	file, loop := filepath.Join(above, "file"), filepath.Join(above, "loop")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(loop, loop)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below"), loop, filepath.Join(loop, "below"), "/proc/nowhere/data"} {
		s, err := crdtstore.Open(t.Context(), crdtstore.Config{Dir: path})
		if err == nil {
			_ = s.Close()
		}
		var field *crdtstore.FieldError
		if !errors.As(err, &field) || field.Field != "Dir" || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error about Dir that names the path", path, err)
		}
	}
}

// What goes wrong while a store that could not be opened is closed is told too.
func TestOpenTellsWhyItCouldNotClose(t *testing.T) {
	dir, errHost := t.TempDir(), errors.New("no host today")
	cfg := crdtstore.Config{Dir: dir, Secret: "s"}
	seam.Of(&cfg).NewHost = func(crypto.PrivKey, []ma.Multiaddr) (host.Host, error) {
		// By now the history is open; it has to write when it is closed.
		return nil, errors.Join(errHost, os.RemoveAll(filepath.Join(dir, "epochs")))
	}
	_, err := crdtstore.Open(t.Context(), cfg)
	if !errors.Is(err, errHost) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want both errors", err)
	}
	// And the directory can be opened again.
	s, err := crdtstore.Open(t.Context(), crdtstore.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
}

// A nil context stands for one that never ends, and Close may be called again.
func TestNilContextAndSecondClose(t *testing.T) {
	var none context.Context
	s, err := crdtstore.Open(none, crdtstore.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Report(none, report("n", 1, 1))
	_, err2 := s.Drain(none, "n", true, "me")
	_, err3 := s.Label(none, "n", map[string]*string{"a": nil}, "me")
	s.EndPreservation(none, "me")
	var backup strings.Builder
	_, err4 := s.Backup(none, &backup)
	_, err5 := s.Restore(none, strings.NewReader(backup.String()))
	_, err6 := s.Remove(none, "n", "me", "")
	if err := errors.Join(err, err2, err3, err4, err5, err6); err != nil {
		t.Error(err)
	}
	if _, err := s.Diff(none, "nobody"); !errors.Is(err, crdtstore.ErrNotFound) {
		t.Errorf("Diff: %v", err)
	}
	if _, err := s.Streams().Dial(none, "nobody", "x"); err == nil {
		t.Error("Dial reached nobody")
	}
	events := s.Watch(none, "")
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, err := range events {
		if !errors.Is(err, crdtstore.ErrClosed) {
			t.Errorf("Watch after Close: %v", err)
		}
	}
	if _, err := s.Report(none, report("n", 2, 1)); !errors.Is(err, crdtstore.ErrClosed) {
		t.Errorf("Report after Close: %v", err)
	}
}

// What a newer program has written is neither taken for damage nor overwritten.
func TestKnownMastersOfANewerVersion(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "masters.json")
	const later = `{"version":2,"masters":{"12D3KooWoak":{"name":"oak"}}}`
	if err := os.WriteFile(path, []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := crdtstore.Open(t.Context(), crdtstore.Config{Dir: dir, Listen: []string{"127.0.0.1:0"}})
	if !errors.Is(err, atomicfile.ErrNewer) || !strings.Contains(err.Error(), path) {
		t.Errorf("opening fails with %v", err)
	}
	if left, err := os.ReadFile(path); err != nil || string(left) != later {
		t.Errorf("the file has become %s, %v", left, err)
	}
}
