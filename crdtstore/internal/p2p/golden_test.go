package p2p

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/golden"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

// fixedHost is a host whose identity is always the same.
func fixedHost(t testing.TB, seed byte) host.Host {
	t.Helper()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	key, err := crypto.UnmarshalEd25519PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return hostOf(t, key, "/ip4/127.0.0.1/tcp/0")
}

// The frames of a handshake between two masters that share a secret, as they would
// be with these identities and nonces.
func TestGoldenAdmit(t *testing.T) {
	dialer := stillOn(t, fixedHost(t, 1), filepath.Join(t.TempDir(), "pins.json"), "the secret")
	listener := stillOn(t, fixedHost(t, 2), filepath.Join(t.TempDir(), "pins.json"), "the secret")
	a, b := dialer.host.ID(), listener.host.ID()
	nonceA, nonceB := bytes.Repeat([]byte{0xa}, 32), bytes.Repeat([]byte{0xb}, 32)
	others := []Contact{{ID: someID, Addrs: []string{"/ip4/10.0.0.3/tcp/9004"}}}
	addrs := []struct {
		from string
		what any
	}{
		{"dialer", &hello{Nonce: nonceA, Addrs: []string{"/ip4/10.0.0.1/tcp/9004"}, Secured: true}},
		{"listener", &hello{Nonce: nonceB, Addrs: []string{"/ip4/10.0.0.2/tcp/9004", "/ip6/fd00::2/tcp/9004"}, Secured: true}},
		{"dialer", &done{Proof: dialer.proof("dialer", a, b, nonceA, nonceB), Masters: others}}, // of an older version
		{"listener", &done{Proof: listener.proof("listener", b, a, nonceB, nonceA), Masters: others}},
		{"dialer", &struct{}{}},
		{"dialer", &done{Refused: errSecrets.Error()}}, // instead of its proof
		{"dialer", &done{Proof: dialer.proof("dialer", a, b, nonceA, nonceB)}},
		{"dialer", &done{Masters: others}},
	}
	var text strings.Builder
	for _, s := range addrs {
		w := &wire{}
		_, write := frames(w)
		if err := write(s.what); err != nil {
			t.Fatal(err)
		}
		frame, err := msgio.NewVarintReader(&w.out).ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s %s\n", s.from, frame)
	}
	i := 0
	for line := range strings.Lines(golden.Text(t, "admit", text.String())) {
		_, frame, _ := strings.Cut(strings.TrimSpace(line), " ")
		got := reflect.New(reflect.TypeOf(addrs[i].what).Elem()).Interface()
		if err := json.Unmarshal([]byte(frame), got); err != nil || !reflect.DeepEqual(got, addrs[i].what) {
			t.Errorf("%s reads as %+v, %v", line, got, err)
		}
		i++
	}
}

// byHand is a dialer that is written after docs/protocol.md and not with the code
// under test. What a later version may add to each frame is in them.
func byHand(t *testing.T, h host.Host, m *node, secret string) {
	t.Helper()
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: m.host.ID(), Addrs: m.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	s, err := h.NewStream(t.Context(), m.host.ID(), "/hero-explorer/admit/1")
	if err != nil {
		t.Fatal(err)
	}
	r, w := msgio.NewVarintReader(s), msgio.NewVarintWriter(s)
	say := func(frame string) {
		t.Helper()
		if err := w.WriteMsg([]byte(frame)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(into any) {
		t.Helper()
		frame, err := r.ReadMsg()
		if err = errors.Join(err, json.Unmarshal(frame, into)); err != nil {
			t.Fatal(err)
		}
	}
	proof := func(role string, prover, verifier peer.ID, nonce, other []byte) []byte {
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "hero-explorer admit 1 %s %s %s %x %x", role, prover, verifier, nonce, other)
		return mac.Sum(nil)
	}
	base64 := func(b []byte) string {
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	nonce := bytes.Repeat([]byte{7}, 32)
	say(`{"later":{"x":[1]},"nonce":` + base64(nonce) + `,"addrs":["/ip4/10.0.0.9/tcp/9004"],"secured":true}`)
	var hello struct {
		Nonce   []byte
		Addrs   []string
		Secured bool
	}
	hear(&hello)
	say(`{"proof":` + base64(proof("dialer", h.ID(), m.host.ID(), nonce, hello.Nonce)) + `,"masters":[{"id":"` + someID + `","addrs":["/ip4/10.0.0.3/tcp/9004"],"later":true}],"later":"x"}`)
	var done struct {
		Proof   []byte
		Refused string
	}
	hear(&done)
	if want := proof("listener", m.host.ID(), h.ID(), hello.Nonce, nonce); done.Refused != "" || !bytes.Equal(done.Proof, want) || len(hello.Nonce) != 32 || !hello.Secured || len(hello.Addrs) == 0 {
		t.Fatalf("the listener says %+v and %+v", hello, done)
	}
	say(`{"later":1}`)
}

func TestHandshakeAsDocumented(t *testing.T) {
	m, h := still(t, "the secret"), testHost(t)
	byHand(t, h, m, "the secret")
	if id := await(t, "joined", m.joined); id != h.ID() || !m.Admitted(h.ID()) {
		t.Errorf("%s is admitted", id)
	}
	if got := fmt.Sprint(m.Contacts()); !strings.Contains(got, someID) || !strings.Contains(got, "10.0.0.9") {
		t.Errorf("it knows %s", got)
	}
}

// Of a master that speaks a protocol only in a newer version the log tells, once. All
// else goes on.
func TestProtocolsOfANewerVersion(t *testing.T) {
	m, newer := still(t, "s"), testHost(t)
	none := func(s network.Stream) { _ = s.Reset() }
	newer.SetStreamHandler("/hero-explorer/admit/2", none)
	if err := m.connect(t.Context(), newer.ID(), newer.Addrs()); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "/hero-explorer/admit/1") {
		t.Errorf("admitting fails with %v", err)
	}
	if m.Admitted(newer.ID()) || m.Knows(newer.ID()) {
		t.Error("it was admitted")
	}

	// One that is admitted, and has dropped what another protocol was.
	friend := still(t, "s")
	friend.Host().SetStreamHandler("/test/chat/2", none)
	if err := friend.finds(t, m); err != nil {
		t.Fatal(err)
	}
	await(t, "joined", m.joined)
	for range 3 {
		if _, err := m.Host().NewStream(t.Context(), friend.host.ID(), chat); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), string(chat)) {
			t.Errorf("a stream fails with %v", err)
		}
	}
	if n := strings.Count(m.log.String(), "a master is of another version"); n != 1 {
		t.Errorf("it is logged %d times:\n%s", n, m.log)
	}
	if !m.Admitted(friend.host.ID()) {
		t.Error("it was turned out")
	}
}

func TestGoldenPins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pins.json")
	p, err := loadPins(path)
	if err != nil {
		t.Fatal(err)
	}
	one, two := fixedHost(t, 1).ID(), fixedHost(t, 2).ID()
	if err := errors.Join(p.pin("/ip4/10.0.0.1/tcp/9004", one), p.pin("/ip6/fd00::2/tcp/9004", two)); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kept := golden.Text(t, "pins.json", string(written))
	if err := os.WriteFile(path, []byte(kept), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err = loadPins(path); err != nil {
		t.Fatal(err)
	}
	if p.pin("/ip4/10.0.0.1/tcp/9004", two) == nil || p.pin("/ip6/fd00::2/tcp/9004", one) == nil || len(p.at) != 2 {
		t.Errorf("the kept file reads as %v", p.at)
	}
}

func TestPinsOfANewerVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pins.json")
	later := `{"version":2,"pins":[{"addr":"/ip4/10.0.0.1/tcp/9004","id":"` + someID + `"}]}`
	if err := os.WriteFile(path, []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(Config{Host: testHost(t), PinsFile: path})
	if !errors.Is(err, atomicfile.ErrNewer) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "delete") {
		t.Errorf("the error is %v", err)
	}
	if left, err := os.ReadFile(path); err != nil || string(left) != later {
		t.Errorf("the file has become %s, %v", left, err)
	}
}
