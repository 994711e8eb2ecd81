package p2p

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Cause is why a peer cannot be met.
type Cause string

// The causes.
const (
	Unreachable Cause = "unreachable"  // no answer, no route, or no such name
	Refused     Cause = "refused"      // nothing listens, or the master there does not take this one
	Secret      Cause = "secret"       // the cluster secrets differ, or only one side has one
	NoMeshPort  Cause = "no_mesh_port" // something else listens
)

// failure is why an attempt to meet a master failed. Its text is the same for the same
// reason: it has no ports of connections and no random ids in it.
type failure struct {
	cause  Cause
	reason string
}

func (f failure) Error() string { return f.reason }

// lasts reports whether somebody has to do something before another attempt can succeed.
func (f failure) lasts() bool { return f.cause == Secret || f.cause == NoMeshPort }

// refusedError is why the other side refused this master, as it said.
type refusedError struct {
	text     string
	replaced bool // for another master that is known at this one's address
}

func (t refusedError) Error() string { return "refused by the other side: " + t.text }

// Is makes what the other side said the error that they were there.
func (t refusedError) Is(err error) bool { return t.text == err.Error() }

// maxRefusalText bounds what is shown of another side's refusal, in runes.
const maxRefusalText = 200

func refusedBy(d done) refusedError {
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, d.Refused)
	if r := []rune(text); len(r) > maxRefusalText {
		text = string(r[:maxRefusalText]) + "…"
	}
	return refusedError{text, d.Replaced}
}

// explain says why an attempt to meet a master at an address failed. Where that is not
// plain from the error it looks at what listens there.
func (m *Mesh) explain(ctx context.Context, addr ma.Multiaddr, err error) failure {
	var already failure
	switch {
	case errors.As(err, &already):
		return already
	case errors.Is(err, errSecrets):
		return failure{cause: Secret, reason: errSecrets.Error()}
	case errors.Is(err, errOneSide):
		return failure{cause: Secret, reason: errOneSide.Error()}
	case errors.As(err, new(refusedError)), errors.As(err, new(refusal)), errors.Is(err, errUnnamed):
		return failure{cause: Refused, reason: err.Error()}
	}
	if f, ok := dialFailure(err); ok {
		return f
	}
	return inspect(ctx, addr)
}

// dialFailure says why no connection could be made, where that is what failed.
func dialFailure(err error) (failure, bool) {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return failure{cause: Refused, reason: "nothing listens there: " + syscall.ECONNREFUSED.Error()}, true
	}
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "dial" {
		return failure{}, false
	}
	if errno, ok := errors.AsType[syscall.Errno](op); ok {
		return failure{cause: Unreachable, reason: errno.Error()}, true
	}
	return failure{cause: Unreachable, reason: "no answer"}, true
}

const (
	inspectTimeout = 2 * time.Second
	maxInspected   = 4 << 10 // bytes of an answer
)

// inspect finds out what listens at an address at which no handshake of libp2p succeeds.
// It asks for what a master's API would answer.
func inspect(ctx context.Context, addr ma.Multiaddr) failure {
	network, at, err := manet.DialArgs(addr)
	if err != nil || !strings.HasPrefix(network, "tcp") {
		return failure{cause: Unreachable, reason: "no answer"}
	}
	d := net.Dialer{Timeout: inspectTimeout}
	conn, err := d.DialContext(ctx, network, at)
	if err != nil {
		if f, ok := dialFailure(err); ok {
			return f
		}
		return failure{cause: Unreachable, reason: "no answer"}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(inspectTimeout))
	_, err = io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: localhost\r\nUser-Agent: hero_explorer looks for a master here\r\nConnection: close\r\n\r\n")
	var answer []byte
	if err == nil {
		answer, err = io.ReadAll(io.LimitReader(conn, maxInspected))
	}
	switch text := string(answer); {
	case strings.Contains(text, `"hero_explorer"`):
		return failure{cause: NoMeshPort, reason: "the API of a master answers there; masters meet at its mesh port (mesh-addr), most often 9004"}
	case strings.HasPrefix(text, "HTTP/"):
		return failure{cause: NoMeshPort, reason: "an HTTP server answers there; is this the API port? Masters meet at the mesh port (mesh-addr), most often 9004"}
	case strings.Contains(text, "/multistream/"):
		return failure{cause: Unreachable, reason: "a mesh port answers there, but breaks off the connection"}
	case len(answer) == 0 && errors.Is(err, os.ErrDeadlineExceeded):
		return failure{cause: Unreachable, reason: "it takes connections and says nothing"}
	}
	return failure{cause: NoMeshPort, reason: "something else than a master's mesh port listens there"}
}

// speaks returns the protocols that the host at the other end of a connection speaks.
func (m *Mesh) speaks(ctx context.Context, c network.Conn) []protocol.ID {
	if h, ok := m.host.(interface{ IDService() identify.IDService }); ok {
		select {
		case <-h.IDService().IdentifyWait(c):
		case <-ctx.Done():
		}
	}
	ids, _ := m.host.Peerstore().GetProtocols(c.RemotePeer()) // fails for none but a closed host
	return ids
}

// notAdmitting says what a libp2p host is that knows no handshake of this version.
func notAdmitting(speaks []protocol.ID) failure {
	for _, p := range speaks {
		if strings.HasPrefix(string(p), "/hero-explorer/admit/") {
			return failure{cause: Refused, reason: ErrVersion.Error()}
		}
	}
	for _, p := range speaks {
		if strings.HasPrefix(string(p), "/hero-explorer/tunnel/") {
			return failure{cause: NoMeshPort, reason: "the edge port of a master answers there, for agents; masters meet at its mesh port (mesh-addr), most often 9004"}
		}
	}
	return failure{cause: NoMeshPort, reason: "a libp2p host answers there that is no master"}
}
