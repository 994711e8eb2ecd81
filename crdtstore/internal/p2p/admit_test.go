package p2p

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-msgio"
)

// impostor is a listener that is written after docs/protocol.md. It answers the handshake
// with a proof of its own choice, and returns the frames that it is sent, until the dialer
// ends the stream.
func impostor(t *testing.T, h host.Host, proof func(dialer string, own, theirs []byte) []byte) <-chan []string {
	t.Helper()
	heard := make(chan []string, 16)
	h.SetStreamHandler("/hero-explorer/admit/1", func(s network.Stream) {
		defer s.Close()
		r, w := msgio.NewVarintReader(s), msgio.NewVarintWriter(s)
		var frames []string
		defer func() { heard <- frames }()
		hear := func() bool {
			b, err := r.ReadMsg()
			frames = append(frames, string(b))
			return err == nil
		}
		say := func(v any) {
			b, err := json.Marshal(v)
			if err == nil {
				err = w.WriteMsg(b)
			}
			if err != nil {
				t.Error(err)
			}
		}
		if !hear() {
			return
		}
		var hello struct{ Nonce []byte }
		if err := json.Unmarshal([]byte(frames[0]), &hello); err != nil {
			t.Error(err)
		}
		nonce := make([]byte, 32)
		say(map[string]any{"nonce": nonce, "addrs": []string{"/ip4/10.0.0.9/tcp/9004"}, "secured": true})
		if !hear() {
			return
		}
		say(map[string]any{"proof": proof(s.Conn().RemotePeer().String(), nonce, hello.Nonce), "masters": []Contact{{ID: someID, Addrs: []string{"/ip4/10.6.6.6/tcp/9004"}}}})
		hear()
	})
	return heard
}

// The dialer admits nobody who does not prove the secret, believes nothing that he says,
// and tells him nothing of the other masters.
func TestListenerMustProveTheSecret(t *testing.T) {
	for name, proof := range map[string]func(own string, dialer string, nonce, theirs []byte) []byte{
		"none":            func(string, string, []byte, []byte) []byte { return nil },
		"nonsense":        func(string, string, []byte, []byte) []byte { return make([]byte, 32) },
		"of another":      func(o, d string, n, h []byte) []byte { return proven("S", "listener", o, d, n, h) },
		"the dialer's":    func(o, d string, n, h []byte) []byte { return proven("s", "dialer", d, o, h, n) },
		"of other nonces": func(o, d string, n, _ []byte) []byte { return proven("s", "listener", o, d, n, n) },
	} {
		t.Run(name, func(t *testing.T) {
			h, m := testHost(t), still(t, "s")
			m.Learn(strangers(t, 3))
			heard := impostor(t, h, func(dialer string, own, theirs []byte) []byte {
				return proof(h.ID().String(), dialer, own, theirs)
			})
			err := m.meet(t.Context(), target{addr: h.Addrs()[0]})
			if f := m.explain(t.Context(), h.Addrs()[0], err); err == nil || f.cause != Secret {
				t.Errorf("it ends with %v: %+v", err, f)
			}
			frames := await(t, "the end of the handshake", heard)
			if all := strings.Join(frames, "\n"); len(frames) < 2 || strings.Contains(all, "192.0.2.1") || strings.Contains(all, "masters") {
				t.Errorf("the other side has heard of masters:\n%s", all)
			}
			if m.Admitted(h.ID()) || m.Knows(h.ID()) || m.Knows(decode(t, someID)) {
				t.Error("it got in, or what it says was believed")
			}
		})
	}

	// One that does prove it hears of them.
	h, m := testHost(t), still(t, "s")
	m.Learn(strangers(t, 3))
	heard := impostor(t, h, func(dialer string, own, theirs []byte) []byte {
		return proven("s", "listener", h.ID().String(), dialer, own, theirs)
	})
	if err := m.meet(t.Context(), target{addr: h.Addrs()[0]}); err != nil || !m.Admitted(h.ID()) {
		t.Fatal(err)
	}
	if frames := await(t, "the end of the handshake", heard); len(frames) != 3 || strings.Count(frames[2], `"/ip4/192.0.2.1/tcp/1"`) != 3 {
		t.Errorf("the other side has heard %q", frames)
	}
}

// proven is a proof of a secret as docs/protocol.md says.
func proven(secret, role, prover, verifier string, own, other []byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "hero-explorer admit 1 %s %s %s %x %x", role, prover, verifier, own, other)
	return mac.Sum(nil)
}

// Masters of before and after the list of masters moved to the last frame admit each
// other.
func TestListsOfMastersOfAnOlderVersion(t *testing.T) {
	m, h := still(t, "the secret"), testHost(t)
	byHand(t, h, m, "the secret") // names its masters with its proof
	if id := await(t, "joined", m.joined); id != h.ID() || !m.Knows(decode(t, someID)) {
		t.Error("what an older dialer names is not learned")
	}
	a, b := still(t, "s"), still(t, "s")
	many := strangers(t, 2)
	a.Learn(many)
	if err := a.finds(t, b); err != nil {
		t.Fatal(err)
	}
	await(t, "the listener", b.joined)
	if !b.Knows(decode(t, many[0].ID)) {
		t.Error("what a dialer names is not learned")
	}
}
