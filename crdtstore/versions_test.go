package crdtstore_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/seam"
)

// newerHost is the host of a master that speaks a protocol in a newer version only,
// whoever asks.
type newerHost struct {
	host.Host
	protocol protocol.ID
}

func (h newerHost) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	if id == h.protocol {
		id = id[:len(id)-1] + "2"
	}
	h.Host.SetStreamHandler(id, handle)
}

func (h newerHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	if slices.Contains(ids, h.protocol) {
		return nil, errors.New("not spoken any more")
	}
	return h.Host.NewStream(ctx, p, ids...)
}

// text is a log that can be read while it is written.
type text struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *text) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *text) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Whichever of the two protocols that bring records another master has replaced by a
// newer one, the other brings them, and the log says once what is the matter.
func TestMasterOfANewerVersion(t *testing.T) {
	for _, id := range []protocol.ID{"/hero-explorer/pull/1", "/hero-explorer/states/1"} {
		t.Run(strings.Split(string(id), "/")[2], func(t *testing.T) {
			t.Parallel()
			open := func(log *text, peers []string, newHost func(crypto.PrivKey, []ma.Multiaddr) (host.Host, error)) *crdtstore.Store {
				cfg := crdtstore.Config{
					Dir: t.TempDir(), Secret: "s", Listen: []string{"127.0.0.1:0"}, Peers: peers,
					Logger: slog.New(slog.NewTextHandler(log, nil)),
				}
				seam.Of(&cfg).NewHost = newHost
				s, err := crdtstore.Open(t.Context(), cfg)
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
			newer := open(&text{}, nil, func(key crypto.PrivKey, listen []ma.Multiaddr) (host.Host, error) {
				h, err := p2p.NewHost(key, listen)
				return newerHost{h, id}, err
			})
			if _, err := newer.Report(t.Context(), report("there", 1, 1)); err != nil {
				t.Fatal(err)
			}
			var log text
			s := open(&log, newer.Masters()[0].MeshAddrs[:1], nil)
			if _, err := s.Report(t.Context(), report("here", 1, 1)); err != nil {
				t.Fatal(err)
			}
			deadline := time.Now().Add(30 * time.Second)
			for s.Masters()[0].Digest != newer.Masters()[0].Digest || s.Health() != nil {
				if time.Now().After(deadline) {
					t.Fatalf("waited 30 s for equal records; the log says\n%s", &log)
				}
				time.Sleep(10 * time.Millisecond)
			}
			if _, err := s.Diff(t.Context(), newer.ID()); strings.Contains(string(id), "states") && (!errors.Is(err, crdtstore.ErrUnreachable) || !strings.Contains(err.Error(), "version")) {
				t.Errorf("comparing: %v", err)
			}
			if n := strings.Count(log.String(), "a master is of another version"); n != 1 || !strings.Contains(log.String(), string(id)) {
				t.Errorf("it is logged %d times:\n%s", n, &log)
			}
		})
	}
}
