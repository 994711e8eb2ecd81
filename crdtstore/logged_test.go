package crdtstore

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
)

// lines is a log that counts them.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) with(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// Another master that says nonsense all the time fills no log, and is named once for each
// kind of it.
func TestNonsenseIsLoggedOnce(t *testing.T) {
	out := new(lines)
	s, err := Open(t.Context(), Config{
		Dir: t.TempDir(), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Secret: "a secret of this test's own",
		Logger: slog.New(slog.NewTextHandler(out, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 { // of each of two masters
		_, key, _ := ed25519.GenerateKey(nil)
		id, err := identity.FromKey(key)
		if err != nil {
			t.Fatal(err)
		}
		from := id.PeerID()
		for i := range 1000 {
			s.cluster.Announced(from, bytes.Repeat([]byte{0xff}, 1+i%9))
			s.cluster.Pulsed(from, bytes.Repeat([]byte{0xff}, 1+i%9))
		}
	}
	for text, want := range map[string]int{`msg="bad announcement"`: 2, `msg="bad pulse"`: 2} {
		if got := out.with(text); got != want {
			t.Errorf("%d lines with %s, want %d", got, text, want)
		}
	}
}
