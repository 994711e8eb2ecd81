package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// unmet waits until the configured peers of a mesh that were not met are as want says.
func (n *node) unmet(t *testing.T, what string, want func([]Unmet) bool) []Unmet {
	t.Helper()
	var last []Unmet
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if last = n.Unmet(n.Admitted); want(last) {
			return last
		}
	}
	t.Fatalf("waited 20 s for %s; not met: %+v\n%s", what, last, n.log)
	return nil
}

// served is where a listener accepts connections and hands them to a function.
func served(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	return l.Addr().String()
}

// closedPort is an address on which nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().String()
}

func httpServer(t *testing.T, answer string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) }))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestWhyAPeerWasNotMet(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	edge := testHost(t)
	edge.SetStreamHandler("/hero-explorer/tunnel/1", func(s network.Stream) { _ = s.Reset() })
	later := testHost(t)
	later.SetStreamHandler("/hero-explorer/admit/2", func(s network.Stream) { _ = s.Reset() })
	right := still(t, "s")
	for name, c := range map[string]struct {
		peer   string
		secret string
		cause  Cause
		reason string
	}{
		"nothing listens":           {closedPort(t), "s", Refused, "connection refused"},
		"a name that nobody knows":  {"no-such-host.invalid", "s", Unreachable, "its name"},
		"the API of a master":       {httpServer(t, `{"status":"ok","service":"hero_explorer"}`), "s", NoMeshPort, "the API of a master"},
		"another HTTP server":       {httpServer(t, "welcome"), "s", NoMeshPort, "is this the API port?"},
		"something with a greeting": {served(t, func(c net.Conn) { io.WriteString(c, "SSH-2.0-x\r\n"); c.Close() }), "s", NoMeshPort, "something else"},
		"something silent":          {served(t, func(c net.Conn) { <-hang; c.Close() }), "s", Unreachable, "says nothing"},
		"the edge port":             {edge.Addrs()[0].String(), "s", NoMeshPort, "edge port"},
		"another libp2p host":       {testHost(t).Addrs()[0].String(), "s", NoMeshPort, "no master"},
		"a later version":           {later.Addrs()[0].String(), "s", Refused, ErrVersion.Error()},
		"another secret":            {still(t, "S").addr.String(), "s", Secret, "secrets differ"},
		"a secret only here":        {still(t, "", "192.0.2.1").addr.String(), "s", Secret, "one side"},
		"a secret only there":       {right.addr.String(), "", Secret, "one side"},
		"not named there":           {still(t, "", "192.0.2.1").addr.String(), "", Refused, "not among the peers"},
		"another id":                {right.addr.String() + "/p2p/" + someID, "s", Refused, someID},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			m := still(t, c.secret, c.peer)
			m.Start(t.Context())
			got := m.unmet(t, string(c.cause), func(u []Unmet) bool { return len(u) == 1 && u[0].Cause != "" })
			if u := got[0]; u.Peer != c.peer || u.Cause != c.cause || !strings.Contains(u.Reason, c.reason) ||
				u.Since.Before(began) || u.Since.After(time.Now()) {
				t.Errorf("it was not met for %+v", u)
			}
			// It stays so, with the beginning that it has.
			m.seek(t.Context())
			if again := m.Unmet(m.Admitted); len(again) != 1 || again[0].Cause != c.cause || !again[0].Since.Equal(got[0].Since) {
				t.Errorf("then for %+v, at first for %+v", again, got)
			}
			const line = "a configured master was not met"
			m.unmet(t, "it to be logged", func([]Unmet) bool { return strings.Contains(m.log.String(), line) })
			if n := strings.Count(m.log.String(), line); n != 1 {
				t.Errorf("logged %d times:\n%s", n, m.log)
			}
		})
	}
}

// A cause that is gone is not shown any more, and neither is a peer that was met.
func TestCauseChanges(t *testing.T) {
	at := closedPort(t)
	m := still(t, "s", at)
	m.Start(t.Context())
	is := func(c Cause) func([]Unmet) bool {
		return func(u []Unmet) bool { return len(u) == 1 && u[0].Cause == c }
	}
	first := m.unmet(t, "refused", is(Refused))

	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Skip("the port is taken:", err)
	}
	s := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = s.Serve(l) }()
	then := m.unmet(t, "another cause", is(NoMeshPort))
	if !then[0].Since.After(first[0].Since) {
		t.Error("the new cause has the beginning of the old one")
	}
	s.Close()
	m.unmet(t, "refused again", is(Refused))

	_, port, _ := net.SplitHostPort(at)
	key := testHost(t).Peerstore()
	other := stillOn(t, hostOf(t, key.PrivKey(key.PeersWithKeys()[0]), "/ip4/127.0.0.1/tcp/"+port), filepath.Join(t.TempDir(), "pins.json"), "s")
	m.unmet(t, "it to be met", func(u []Unmet) bool { return len(u) == 0 })
	// Who was met once is a master that is down.
	id := other.host.ID()
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "it to leave", m.left)
	m.seek(t.Context())
	if u := m.Unmet(func(p peer.ID) bool { return p == id }); len(u) != 0 {
		t.Errorf("never met: %+v", u)
	}
}

func TestOwnAddressAndSpellingsAreNoPeers(t *testing.T) {
	h := testHost(t)
	_, port, _ := net.SplitHostPort(where(h.Addrs()[0]))
	other := still(t, "s")
	_, theirs, _ := net.SplitHostPort(where(other.host.Addrs()[0]))
	absent := closedPort(t)
	m := stillOn(t, h, filepath.Join(t.TempDir(), "pins.json"), "s",
		"127.0.0.1:"+port, "localhost:"+port, h.Addrs()[0].String()+"/p2p/"+h.ID().String(),
		"127.0.0.1:"+theirs, "localhost:"+theirs, "/dns4/localhost/tcp/"+theirs,
		absent, absent)
	// From the first moment on: nobody is told that a master has not met itself.
	if u := m.Unmet(m.Admitted); slices.ContainsFunc(u, func(u Unmet) bool {
		return strings.Contains(u.Peer, ":"+port) || strings.Contains(u.Peer, h.ID().String())
	}) {
		t.Errorf("it has not met itself: %+v", u)
	}
	m.Start(t.Context())
	m.unmet(t, "one row for the absent peer", func(u []Unmet) bool { return len(u) == 1 && u[0].Peer == absent })
}

// Whoever may say that this master is replaced keeps it from serving, so few may: those that
// the operator has named, and only where ids are what masters are known by.
func TestWhoMaySayThatAnotherWasHere(t *testing.T) {
	named, stranger := ma.StringCast("/ip4/10.0.0.1/tcp/9004"), ma.StringCast("/ip4/10.0.0.9/tcp/9004")
	says := refusedError{text: "another master was at 10.0.0.2 before", replaced: true}
	for _, c := range []struct {
		name, secret string
		by           ma.Multiaddr
		err          error
		want         string
	}{
		{"a named master", "", named, fmt.Errorf("handshake: %w", says), "10.0.0.1: " + says.text},
		{"a stranger", "", stranger, says, ""},
		{"a named master that has another reason", "", named, refusedError{text: says.text}, ""},
		{"anybody where there is a secret", "s", named, says, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := &Mesh{cfg: Config{Secret: c.secret}, named: map[string]time.Time{"10.0.0.1": time.Now()}}
			if m.noteReplaced(c.by, c.err); m.Replaced() != c.want {
				t.Errorf("%s: it is replaced: %q, want %q", c.name, m.Replaced(), c.want)
			}
			time.Sleep(replacedFor + time.Second)
			if why := m.Replaced(); why != "" {
				t.Errorf("%s: after %s it counts still: %q", c.name, replacedFor, why)
			}
		})
	}
}

// A master that is met at an address is not the one that was configured there by another id.
func TestAnotherMasterIsThere(t *testing.T) {
	other := still(t, "s")
	addr := other.host.Addrs()[0].String()
	wrong := addr + "/p2p/" + testHost(t).ID().String()
	m := stillOn(t, testHost(t), filepath.Join(t.TempDir(), "pins.json"), "s", addr, wrong)
	other.Start(t.Context())
	m.Start(t.Context())
	m.unmet(t, "one row for the peer that is another one", func(u []Unmet) bool {
		return m.Admitted(other.host.ID()) && len(u) == 1 && u[0].Peer == wrong && u[0].Cause == Refused &&
			strings.Contains(u[0].Reason, other.host.ID().String())
	})
}

// Of the addresses of a name all of one family have to be met.
func TestNamesOfSeveralAddresses(t *testing.T) {
	met := func(id peer.ID) bool { return id == "A" || id == "B" }
	addr := func(text string, id peer.ID, c Cause) candidateAddr {
		return candidateAddr{ma.StringCast(text), id, attempt{failure: failure{cause: c, reason: "why " + string(c)}}}
	}
	for name, c := range map[string]struct {
		addrs  []candidateAddr
		cause  Cause
		reason string
		is     bool
	}{
		"nothing is known":              {nil, "", "", true},
		"met over IPv4 only":            {[]candidateAddr{addr("/ip4/10.0.0.1/tcp/1", "A", ""), addr("/ip6/fd00::1/tcp/1", "", Refused)}, "", "", false},
		"met over IPv6 only":            {[]candidateAddr{addr("/ip4/10.0.0.1/tcp/1", "", Unreachable), addr("/ip6/fd00::1/tcp/1", "A", "")}, "", "", false},
		"two of two":                    {[]candidateAddr{addr("/ip4/10.0.0.1/tcp/1", "A", ""), addr("/ip4/10.0.0.2/tcp/1", "B", "")}, "", "", false},
		"one of two":                    {[]candidateAddr{addr("/ip4/10.0.0.1/tcp/1", "A", ""), addr("/ip4/10.0.0.2/tcp/1", "", Refused)}, Refused, "10.0.0.2:1: why refused", true},
		"one of two, the other strange": {[]candidateAddr{addr("/ip4/10.0.0.1/tcp/1", "A", ""), addr("/ip4/10.0.0.2/tcp/1", "X", Secret)}, Secret, "10.0.0.2:1: why secret", true},
		"none, the plainest cause":      {[]candidateAddr{addr("/ip4/10.0.0.1/tcp/1", "", Unreachable), addr("/ip6/fd00::1/tcp/1", "", NoMeshPort)}, NoMeshPort, "[fd00::1]:1: why no_mesh_port", true},
	} {
		u, is := candidate{addrs: c.addrs}.unmet(met)
		if is != c.is || is && (u.Cause != c.cause || u.Reason != c.reason) {
			t.Errorf("%s: %+v, %v", name, u, is)
		}
	}
	if u, is := (candidate{id: "A", addrs: []candidateAddr{addr("/ip4/10.0.0.1/tcp/1", "", Refused)}}).unmet(met); is {
		t.Errorf("a master that was met elsewhere: %+v", u)
	}
}

// What is logged and compared of an error has no ports and ids in it that vary.
func TestReasonsDoNotVary(t *testing.T) {
	from := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 53124}
	to := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 9004}
	for _, c := range []struct {
		err  error
		want failure
	}{
		{&net.OpError{Op: "dial", Net: "tcp", Source: from, Addr: to, Err: syscall.EHOSTUNREACH}, failure{cause: Unreachable, reason: "no route to host"}},
		{&net.OpError{Op: "dial", Net: "tcp", Source: from, Addr: to, Err: context.DeadlineExceeded}, failure{cause: Unreachable, reason: "no answer"}},
		{fmt.Errorf("to %s: %w", someID, &net.OpError{Op: "dial", Source: from, Addr: to, Err: syscall.ECONNREFUSED}), failure{cause: Refused, reason: "nothing listens there: connection refused"}},
	} {
		if got, ok := dialFailure(c.err); !ok || got != c.want {
			t.Errorf("%v is %+v, %v", c.err, got, ok)
		}
	}
	if f, ok := dialFailure(&net.OpError{Op: "read", Source: from, Addr: to, Err: syscall.ECONNRESET}); ok {
		t.Errorf("a connection that was made counts as none: %+v", f)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&net.DNSError{Err: "no such host", Name: "a", Server: "10.0.0.1:53", IsNotFound: true}, "its name is not known: no such host"},
		{&net.DNSError{Err: "read udp 10.0.0.1:41234->10.0.0.2:53: i/o timeout", Name: "a", IsTimeout: true}, "its name cannot be resolved: the name server does not answer"},
		{errors.New("read udp 10.0.0.1:41234->10.0.0.2:53: x"), "its name cannot be resolved"},
	} {
		if got := lookupFailure(c.err); got != c.want {
			t.Errorf("%v is %q", c.err, got)
		}
	}
	if long := refusedBy(done{Refused: strings.Repeat("x\n\x1b", 1000)}).text; len(long) > maxRefusalText+3 || strings.ContainsAny(long, "\n\x1b") {
		t.Errorf("another side's words are shown as %q", long)
	}
}

// An address that a name has stood for does not let anybody in for ever.
func TestNamedAddressesExpire(t *testing.T) {
	m := still(t, "", "127.0.0.1:1")
	stranger, from := testHost(t).ID(), ma.StringCast("/ip4/127.0.0.1/tcp/4001")
	addrs := []string{"/ip4/127.0.0.1/tcp/9004"}
	if err := m.expect(stranger, from, addrs); err != nil {
		t.Fatal(err)
	}
	// The name stands for another address now.
	elsewhere, err := ParseAddress("127.0.0.2:1")
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.peers[0].Address = elsewhere
	m.named["127.0.0.1"] = time.Now().Add(-namedAge - time.Second)
	m.mu.Unlock()
	m.resolve(t.Context())
	if err := m.expect(stranger, from, addrs); !errors.Is(err, errUnnamed) {
		t.Errorf("an address that nothing stands for any more: %v", err)
	}
	if len(m.named) != 1 {
		t.Errorf("kept as named: %v", m.named)
	}
	// While the name server does not answer, what it said last holds for a while.
	if m.peers[0].Address, err = ParseAddress("no-such-host.invalid:1"); err != nil {
		t.Fatal(err)
	}
	if targets := m.resolve(t.Context()); len(targets) != 1 || m.named["127.0.0.2"].IsZero() {
		t.Errorf("then it looks at %v, and has named %v", targets, m.named)
	}
}
