package p2p

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
	ma "github.com/multiformats/go-multiaddr"
)

// testHost is a host of a new identity on the loopback interface.
func testHost(t testing.TB) host.Host {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return hostOf(t, key, "/ip4/127.0.0.1/tcp/0")
}

func hostOf(t testing.TB, key crypto.PrivKey, listen string) host.Host {
	t.Helper()
	h, err := NewHost(key, []ma.Multiaddr{ma.StringCast(listen)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// node is a mesh and what it told.
type node struct {
	*Mesh
	addr         Address
	joined, left chan peer.ID
	log          *record
	shut         bool
}

func (n *node) Close() error {
	n.shut = true
	return n.Mesh.Close()
}

// record keeps what is logged.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// still makes a mesh that answers, but does not look for anybody by itself.
func still(t testing.TB, secret string, peers ...string) *node {
	t.Helper()
	return stillOn(t, testHost(t), filepath.Join(t.TempDir(), "pins.json"), secret, peers...)
}

func stillOn(t testing.TB, h host.Host, pins, secret string, peers ...string) *node {
	t.Helper()
	n := &node{joined: make(chan peer.ID, 64), left: make(chan peer.ID, 64), log: &record{}}
	cfg := Config{
		Host: h, Secret: secret, PinsFile: pins,
		Logger: slog.New(slog.NewTextHandler(n.log, nil)),
		Joined: func(id peer.ID) { n.joined <- id }, Left: func(id peer.ID) { n.left <- id },
	}
	for _, p := range peers {
		a, err := ParseAddress(p)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Peers = append(cfg.Peers, a)
	}
	var err error
	if n.Mesh, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n.shut {
			return
		}
		if err := n.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	if n.addr, err = ParseAddress(h.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	n.resolve(t.Context())
	h.Network().Notify(&network.NotifyBundle{ConnectedF: n.connected, DisconnectedF: n.disconnected})
	h.SetStreamHandler(admitProtocol, n.answer)
	return n
}

// finds has one mesh look at the address of another, as it does twice a second.
func (n *node) finds(t testing.TB, other *node) error {
	t.Helper()
	addrs, err := other.addr.Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n.meet(t.Context(), target{addr: addrs[0]})
}

// await returns what comes out of a channel next.
func await[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("waited 20 s for", what)
	}
	return v
}

func TestHandshake(t *testing.T) {
	here := "127.0.0.1:1" // the host of everyone in this test; the port does not matter
	for name, c := range map[string]struct {
		dialer, listener           string // secrets
		dialerKnows, listenerKnows []string
		want                       error
	}{
		"the same secret":             {"s", "s", nil, nil, nil},
		"other secrets":               {"s", "S", nil, nil, errSecrets},
		"only the dialer has one":     {"s", "", nil, []string{here}, errOneSide},
		"only the listener has one":   {"", "s", []string{here}, nil, errOneSide},
		"none, but an unnamed dialer": {"", "", []string{here}, []string{"192.0.2.1"}, errUnnamed},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := still(t, c.dialer, c.dialerKnows...), still(t, c.listener, c.listenerKnows...)
			err := a.finds(t, b)
			if c.want == nil {
				if err != nil || !a.Admitted(b.host.ID()) || !b.Admitted(a.host.ID()) {
					t.Fatal("not admitted:", err)
				}
				if id := await(t, "the dialer", a.joined); id != b.host.ID() {
					t.Errorf("%s joined", id)
				}
				if id := await(t, "the listener", b.joined); id != a.host.ID() {
					t.Errorf("%s joined", id)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want.Error()) {
				t.Errorf("the dialer is told %v, want %v", err, c.want)
			}
			for _, n := range []*node{a, b} {
				if len(n.Peers()) != 0 || len(n.joined) != 0 {
					t.Errorf("somebody was admitted: %v", n.Peers())
				}
			}
			if b.Knows(a.host.ID()) {
				t.Error("who was refused is known")
			}
		})
	}
}

func TestAdmittedByName(t *testing.T) {
	// Without a secret two masters have to name each other.
	ha, hb := testHost(t), testHost(t)
	dir := t.TempDir()
	a := stillOn(t, ha, filepath.Join(dir, "a"), "", hb.Addrs()[0].String())
	b := stillOn(t, hb, filepath.Join(dir, "b"), "", ha.Addrs()[0].String())
	if err := a.finds(t, b); err != nil || !a.Admitted(hb.ID()) || !b.Admitted(ha.ID()) {
		t.Fatal(err)
	}
	// Each has pinned the other.
	for file, want := range map[string]string{"a": hb.Addrs()[0].String() + " " + hb.ID().String(), "b": ha.Addrs()[0].String() + " " + ha.ID().String()} {
		pinned, err := os.ReadFile(filepath.Join(dir, file))
		var is pinsFile
		if err = errors.Join(err, json.Unmarshal(pinned, &is)); err != nil {
			t.Fatal(err)
		}
		addr, id, _ := strings.Cut(want, " ")
		if len(is.Pins) != 1 || is.Pins[addr].String() != id {
			t.Errorf("%s has pinned %v, want %s", file, is.Pins, want)
		}
	}
}

// TestPinsRefuseAnotherAtTheSameAddress has a second master come up where the
// first one was.
func TestPinsRefuseAnotherAtTheSameAddress(t *testing.T) {
	hb := testHost(t)
	at := hb.Addrs()[0].String()
	pins := filepath.Join(t.TempDir(), "pins.json")
	ha := testHost(t)
	a := stillOn(t, ha, pins, "", at)
	b := stillOn(t, hb, filepath.Join(t.TempDir(), "pins.json"), "", ha.Addrs()[0].String())
	if err := a.finds(t, b); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	thief := stillOn(t, hostOf(t, key, at), filepath.Join(t.TempDir(), "pins.json"), "", ha.Addrs()[0].String())
	if err := a.finds(t, thief); err == nil {
		t.Error("another id was taken at a pinned address")
	}
	// The first failure has made it ask again who is there.
	if err := a.finds(t, thief); err == nil || !strings.Contains(err.Error(), pins) {
		t.Errorf("the error does not name the file to mend: %v", err)
	}
	if err := thief.finds(t, a); err == nil {
		t.Error("another id got in from a pinned address")
	}
	if a.Admitted(thief.host.ID()) || a.Knows(thief.host.ID()) {
		t.Error("the thief is known")
	}

	// And the same after a restart, from the file.
	again := stillOn(t, testHost(t), pins, "", at)
	if err := again.finds(t, thief); err == nil || again.Admitted(thief.host.ID()) {
		t.Error("after a restart another id was taken at a pinned address:", err)
	}
}

func TestAddressThatNamesAnID(t *testing.T) {
	b := still(t, "s")
	wrong, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(wrong)
	if err != nil {
		t.Fatal(err)
	}
	a := still(t, "s")
	addr := b.host.Addrs()[0]
	if err := a.meet(t.Context(), target{addr: addr, id: id}); err == nil || a.Admitted(b.host.ID()) {
		t.Error("somebody else than was named was admitted:", err)
	}
	if err := a.meet(t.Context(), target{addr: addr, id: b.host.ID()}); err != nil || !a.Admitted(b.host.ID()) {
		t.Error(err)
	}
}

func TestPinsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pins.json")
	p, err := loadPins(path)
	if err != nil {
		t.Fatal(err)
	}
	one, two := testHost(t).ID(), testHost(t).ID()
	if err := errors.Join(p.pin("/ip4/1.2.3.4/tcp/1", one), p.pin("/ip4/1.2.3.4/tcp/1", one)); err != nil {
		t.Fatal(err)
	}
	if p, err = loadPins(path); err != nil {
		t.Fatal(err)
	}
	if err := p.pin("/ip4/1.2.3.4/tcp/1", two); err == nil {
		t.Error("a pin was overwritten")
	}
	if err := p.pin("/ip4/1.2.3.4/tcp/2", two); err != nil {
		t.Error(err)
	}
	for _, broken := range []string{"{broken", "null", "", "{}", `{"version":1}`, `{"version":1,"pins":null}`, `{"version":1,"pins":{"a":"b"}}`} {
		if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadPins(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q was read: %v", broken, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

const chat protocol.ID = "/test/chat/1"

// TestStrangersDoNotExist connects without being admitted.
func TestStrangersDoNotExist(t *testing.T) {
	m := still(t, "s")
	spoke := make(chan peer.ID, 1)
	handle := func(s network.Stream) {
		spoke <- s.Conn().RemotePeer()
		_ = s.Close()
	}
	m.Host().SetStreamHandler(chat, handle)
	m.Host().SetStreamHandlerMatch(chat+"/match", func(p protocol.ID) bool { return p == chat+"/match" }, handle)
	stranger := testHost(t)
	if err := stranger.Connect(t.Context(), peer.AddrInfo{ID: m.host.ID(), Addrs: m.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []protocol.ID{chat, chat + "/match"} {
		s, err := stranger.NewStream(t.Context(), m.host.ID(), p)
		if err != nil {
			continue // refused at once
		}
		_, _ = s.Write([]byte("hello"))
		if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: a stranger's stream was not reset: %v", p, err)
		}
	}
	g := m.Host()
	if _, err := g.NewStream(t.Context(), stranger.ID(), chat); !errors.Is(err, ErrNotAdmitted) {
		t.Error("a stream to a stranger:", err)
	}
	if len(g.Network().Peers()) != 0 || g.Network().Connectedness(stranger.ID()) == network.Connected {
		t.Error("a stranger is seen")
	}
	select {
	case id := <-spoke:
		t.Errorf("%s got through", id)
	default:
	}

	friend := still(t, "s")
	if err := friend.finds(t, m); err != nil {
		t.Fatal(err)
	}
	s, err := friend.Host().NewStream(t.Context(), m.host.ID(), chat)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if id := await(t, "the stream", spoke); id != friend.host.ID() {
		t.Errorf("%s got through", id)
	}
	if !slices.Equal(g.Network().Peers(), []peer.ID{friend.host.ID()}) {
		t.Errorf("seen are %v", g.Network().Peers())
	}
}

func TestDisconnectedIsNotAdmitted(t *testing.T) {
	a, b := still(t, "s"), still(t, "s")
	for range 3 {
		if err := a.finds(t, b); err != nil {
			t.Fatal(err)
		}
		await(t, "joined", a.joined)
		await(t, "joined", b.joined)
		if err := a.host.Network().ClosePeer(b.host.ID()); err != nil {
			t.Fatal(err)
		}
		if id := await(t, "left", a.left); id != b.host.ID() {
			t.Errorf("%s left", id)
		}
		await(t, "left", b.left)
		if a.Admitted(b.host.ID()) || b.Admitted(a.host.ID()) {
			t.Error("still admitted")
		}
		if !a.Knows(b.host.ID()) || !b.Knows(a.host.ID()) {
			t.Error("forgotten")
		}
	}
}

func TestBothDialAtOnce(t *testing.T) {
	a, b := still(t, "s"), still(t, "s")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { _ = a.finds(t, b) })
		all.Go(func() { _ = b.finds(t, a) })
	}
	all.Wait()
	if !a.Admitted(b.host.ID()) || !b.Admitted(a.host.ID()) {
		t.Error("not admitted")
	}
	await(t, "joined", a.joined)
	await(t, "joined", b.joined)
	if len(a.joined) != 0 || len(b.joined) != 0 {
		t.Error("joined twice")
	}
}

func TestSelfAmongThePeers(t *testing.T) {
	h := testHost(t)
	m := stillOn(t, h, filepath.Join(t.TempDir(), "pins.json"), "s", h.Addrs()[0].String())
	addr := h.Addrs()[0]
	for range 2 {
		if err := m.meet(t.Context(), target{addr: addr}); err != nil {
			t.Error(err)
		}
	}
	if len(m.Peers()) != 0 || m.Knows(h.ID()) {
		t.Error("met itself")
	}
}

// TestProofIsGoodOnce changes each thing that a proof is bound to.
func TestProofIsGoodOnce(t *testing.T) {
	m, other := still(t, "s"), still(t, "S")
	a, b := m.host.ID(), other.host.ID()
	seen := map[string]string{}
	for name, proof := range map[string][]byte{
		"it":             m.proof("dialer", a, b, []byte{1}, []byte{2}),
		"another role":   m.proof("listener", a, b, []byte{1}, []byte{2}),
		"turned around":  m.proof("dialer", b, a, []byte{1}, []byte{2}),
		"other nonces":   m.proof("dialer", a, b, []byte{2}, []byte{1}),
		"shifted nonces": m.proof("dialer", a, b, []byte{1, 2}, nil),
		"another prover": m.proof("dialer", a, a, []byte{1}, []byte{2}),
		"another secret": other.proof("dialer", a, b, []byte{1}, []byte{2}),
	} {
		if was, ok := seen[string(proof)]; ok || len(proof) != 32 {
			t.Errorf("%q is %x, as is %q", name, proof, was)
		}
		seen[string(proof)] = name
	}
	if p := still(t, "").proof("dialer", a, b, []byte{1}, []byte{2}); p != nil {
		t.Errorf("without a secret the proof is %x", p)
	}
}

// TestHalfAHandshake breaks it off at every step, and then does it right.
func TestHalfAHandshake(t *testing.T) {
	m := still(t, "s")
	h := testHost(t)
	d := &Mesh{cfg: Config{Secret: "s"}, host: h} // to make proofs with
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: m.host.ID(), Addrs: m.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	for steps := range 3 {
		s, err := h.NewStream(t.Context(), m.host.ID(), admitProtocol)
		if err != nil {
			t.Fatal(err)
		}
		read, write := frames(s)
		nonce := bytes.Repeat([]byte{7}, 32)
		var theirs hello
		if steps > 0 {
			err = errors.Join(write(hello{Nonce: nonce, Secured: true}), read(&theirs))
		}
		if steps > 1 {
			err = errors.Join(err, write(done{Proof: d.proof("dialer", h.ID(), m.host.ID(), nonce, theirs.Nonce)}), read(&done{}))
		}
		if err != nil {
			t.Fatalf("step %d: %v", steps, err)
		}
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s) // until the other side has given up
		if m.Admitted(h.ID()) || len(m.joined) != 0 {
			t.Errorf("admitted after %d steps", steps)
		}
	}
	friend := stillOn(t, h, filepath.Join(t.TempDir(), "pins.json"), "s")
	if err := friend.finds(t, m); err != nil || !m.Admitted(h.ID()) {
		t.Error(err)
	}
}

func TestContactsAreLearnt(t *testing.T) {
	m := still(t, "s")
	b := still(t, "s")
	m.Learn([]Contact{
		{ID: b.host.ID().String(), Addrs: append([]string{"nonsense", ""}, texts(b.host.Addrs())...)},
		{ID: "nobody"}, {ID: m.host.ID().String(), Addrs: []string{"/ip4/1.2.3.4/tcp/1"}},
	})
	want := []Contact{{ID: b.host.ID().String(), Addrs: texts(b.host.Addrs())}}
	if got := m.Contacts(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("learnt %v, want %v", got, want)
	}
	m.Forget(b.host.ID())
	if m.Knows(b.host.ID()) || len(m.Contacts()) != 0 {
		t.Error("not forgotten")
	}
}

// TestFullMesh starts masters of which each knows only one other. What it knows
// it tells at the handshake; later the pulses do.
func TestFullMesh(t *testing.T) {
	var nodes []*node
	met := map[*node]map[peer.ID]bool{}
	meets := func(n *node, others int) {
		t.Helper()
		for len(met[n]) < others {
			met[n][await(t, "a master to join", n.joined)] = true
		}
	}
	for i := range 3 {
		var peers []string
		if i > 0 {
			peers = []string{nodes[i-1].addr.String()}
		}
		n := still(t, "s", peers...)
		n.Start(t.Context())
		nodes, met[n] = append(nodes, n), map[peer.ID]bool{}
		meets(n, min(i, 1))
	}
	for _, n := range nodes {
		meets(n, 2)
		if len(n.Peers()) != 2 {
			t.Errorf("%d peers", len(n.Peers()))
		}
	}
	// One that goes and comes back, on another port, is found again.
	key := nodes[2].host.Peerstore().PrivKey(nodes[2].host.ID())
	if err := nodes[2].Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes[:2] {
		await(t, "it to leave", n.left)
	}
	back := stillOn(t, hostOf(t, key, "/ip4/127.0.0.1/tcp/0"), filepath.Join(t.TempDir(), "pins.json"), "s", nodes[0].addr.String())
	back.Start(t.Context())
	for range 2 {
		await(t, "the others", back.joined)
	}
}

// TestRefusalsAreLoggedOnce looks at a master of another secret again and again.
func TestRefusalsAreLoggedOnce(t *testing.T) {
	a, b := still(t, "s"), still(t, "S")
	for range 5 {
		_ = a.finds(t, b)
	}
	stop := time.Now().Add(10 * time.Second)
	for !strings.Contains(b.log.String(), errSecrets.Error()) && time.Now().Before(stop) {
		_ = a.finds(t, b)
	}
	if n := strings.Count(b.log.String(), "master refused"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, b.log)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	a, b := still(t, "s"), still(t, "s")
	a.Start(t.Context())
	if err := a.finds(t, b); err != nil {
		t.Fatal(err)
	}
	await(t, "the admission", b.joined)
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if id := await(t, "the other to see it", b.left); id != a.host.ID() {
		t.Errorf("%s left", id)
	}
	a.spawn("after the end", func() { t.Error("something was started after the end") })
	b.host.Peerstore().AddAddrs(a.host.ID(), a.host.Addrs(), peerstore.TempAddrTTL)
	if err := b.finds(t, a); err == nil {
		t.Error("a closed mesh answers")
	}
}

// wire is a stream that says what it was given.
type wire struct {
	network.Stream
	in   io.Reader
	out  bytes.Buffer
	addr ma.Multiaddr
}

func (w *wire) Read(b []byte) (int, error)  { return w.in.Read(b) }
func (w *wire) Write(b []byte) (int, error) { return w.out.Write(b) }
func (w *wire) Conn() network.Conn          { return wireConn{addr: w.addr} }

type wireConn struct {
	network.Conn
	addr ma.Multiaddr
}

func (c wireConn) RemoteMultiaddr() ma.Multiaddr { return c.addr }

func FuzzAnswer(f *testing.F) {
	secured, open := still(f, "s"), still(f, "", "192.0.2.1")
	stranger := testHost(f).ID()
	good, err := json.Marshal(hello{Nonce: make([]byte, 32), Addrs: []string{"/ip4/192.0.2.1/tcp/9004"}, Secured: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, []byte(`{"proof":"AAAA","masters":[{"id":"`+someID+`","addrs":["/ip4/1.2.3.4/tcp/1"]}]}`))
	f.Add([]byte(`{"nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","addrs":[],"secured":false}`), []byte(`{}`))
	f.Add([]byte(`{}`), []byte(`{"refused":"no"}`))
	f.Add([]byte(`[`), []byte(`null`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for _, m := range []*node{secured, open} {
			var in bytes.Buffer
			w := msgio.NewVarintWriter(&in)
			for _, frame := range [][]byte{first, second, []byte(`{}`)} {
				if err := w.WriteMsg(frame); err != nil {
					t.Fatal(err)
				}
			}
			s := &wire{in: &in, addr: ma.StringCast("/ip4/192.0.2.2/tcp/4001")}
			read, write := frames(s)
			if err := m.answerTo(s, stranger, read, write); err == nil {
				t.Error("a handshake of junk succeeded")
			}
			if m.Admitted(stranger) || m.Knows(stranger) || len(m.Contacts()) > 0 {
				t.Fatal("junk got in")
			}
		}
	})
}
