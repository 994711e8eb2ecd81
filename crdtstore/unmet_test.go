package crdtstore_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

func openAt(t *testing.T, dir, name, listen, secret string, peers ...string) *crdtstore.Store {
	t.Helper()
	s, err := crdtstore.Open(t.Context(), crdtstore.Config{
		Dir: dir, Name: name, Listen: []string{listen}, Secret: secret, Peers: peers, NoSync: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// mastersAre waits until the masters but this one are so: "name status cause".
func mastersAre(t *testing.T, s *crdtstore.Store, want ...string) []crdtstore.Master {
	t.Helper()
	var got []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		got = nil
		all := s.Masters()[1:]
		for _, m := range all {
			got = append(got, strings.TrimSpace(m.Name+" "+string(m.Status)+" "+string(m.Cause)))
		}
		if slices.Equal(got, want) {
			return all
		}
	}
	t.Fatalf("the masters are %q, want %q", got, want)
	return nil
}

func TestPeerThatWasNeverMet(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer := l.Addr().String()
	web := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = web.Serve(l) }()

	dir := t.TempDir()
	s := openAt(t, dir, "one", "127.0.0.1:0", "s", peer)
	began := time.Now()
	m := mastersAre(t, s, peer+" never_met no_mesh_port")[0]
	if m.ID != "" || m.Reason == "" || m.Since.Before(began.Add(-time.Minute)) || m.Since.After(time.Now()) || len(m.MeshAddrs) != 1 {
		t.Errorf("the row is %+v", m)
	}
	if n := s.Stats().Masters["never_met"]; n != 1 {
		t.Errorf("%d are counted", n)
	}
	if _, err := s.Diff(t.Context(), peer); !errors.Is(err, crdtstore.ErrUnreachable) || !strings.Contains(err.Error(), m.Reason) {
		t.Errorf("a comparison with it fails with %v", err)
	}
	if b, err := json.Marshal(s.Masters()[0]); err != nil || strings.Contains(string(b), `"cause"`) || strings.Contains(string(b), `"since"`) {
		t.Errorf("of others neither cause nor since is said: %s, %v", b, err)
	}
	// It is told once that this lasts.
	published := func() (texts []string) {
		page, err := s.Events(crdtstore.EventQuery{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Events {
			if o.Type == crdtstore.EventNeverMet {
				texts = append(texts, o.Text)
			}
		}
		return texts
	}
	for end := time.Now().Add(20 * time.Second); len(published()) == 0 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if got := published(); len(got) != 1 || !strings.Contains(got[0], peer) {
		t.Errorf("told %q", got)
	}

	// Another cause, and then the master itself.
	web.Close()
	mastersAre(t, s, peer+" never_met refused")
	other := openAt(t, t.TempDir(), "two", peer, "s")
	mastersAre(t, s, "two alive")
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	mastersAre(t, s, "two left")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// One that was met in an earlier run was met.
	s = openAt(t, dir, "one", "127.0.0.1:0", "s", peer)
	mastersAre(t, s, "two left")
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		mastersAre(t, s, "two left")
	}
}
