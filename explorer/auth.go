package explorer

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// AuthMode says who must show a token.
type AuthMode string

// The modes of Config.Auth.
const (
	// AuthAuto trusts the unix socket and loopback. Beyond them a bearer token
	// is needed to administer nodes and for VM calls; reading, registering and
	// heartbeats are open. What a proxy on this machine forwards for somebody
	// elsewhere (X-Forwarded-For and the like) does not count as loopback.
	AuthAuto AuthMode = "auto"
	// AuthOff trusts everybody who can connect: for a private network.
	AuthOff AuthMode = "off"
	// AuthAll demands a token for everything but /health and the page itself,
	// from everywhere but the unix socket.
	AuthAll AuthMode = "all"
)

// access is what a method or a path asks of its caller.
type access int

const (
	accessOpen  access = iota // reading, registering, heartbeats
	accessVM                  // calls to a node's compute service
	accessAdmin               // an operator's override of a node
)

// origin is where a connection or a request comes from.
type origin int

const (
	fromRemote origin = iota
	fromLoopback
	fromUnix
)

// caller is who sends a request.
type caller struct {
	origin origin
	name   string // for the record of who drained a node: "local", "token ci", an IP
	token  bool   // showed a valid token
	bad    bool   // showed one that is not valid
}

type callerKey struct{}

// nobody is the caller of a request that came by no listener of ours.
var nobody = &caller{name: "unknown"}

func callerOf(ctx context.Context) *caller {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return c
	}
	return nobody
}

// connCaller puts the caller into the context of a connection, so that requests
// which say nothing more about themselves cost no allocation.
func connCaller(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, callerKey{}, newCaller(conn.LocalAddr(), conn.RemoteAddr().String()))
}

// newCaller returns who is at the other end of a connection. local is nil where the
// connection is not known.
func newCaller(local net.Addr, remote string) *caller {
	c := &caller{name: "remote"}
	if local != nil && local.Network() == "unix" {
		c.origin, c.name = fromUnix, "local"
	} else if a, err := netip.ParseAddrPort(remote); err == nil {
		c.name = a.Addr().Unmap().String()
		if a.Addr().Unmap().IsLoopback() {
			c.origin, c.name = fromLoopback, "local"
		}
	}
	return c
}

// identify looks at the headers of a request: a token raises the caller, and
// signs of a proxy on this machine take the trust in loopback away.
func (s *Server) identify(r *http.Request) *http.Request {
	authorization := r.Header["Authorization"]
	via := forwardedFor(r.Header)
	if len(authorization) == 0 && via == "" {
		return r
	}
	c := *callerOf(r.Context())
	if c.origin == fromLoopback && via != "" {
		c.origin, c.name = fromRemote, via
	}
	if len(authorization) > 0 {
		scheme, secret, _ := strings.Cut(authorization[0], " ")
		name, ok, err := "", false, error(nil)
		if strings.EqualFold(scheme, "Bearer") {
			name, ok, err = s.tokens.find(strings.TrimSpace(secret))
		}
		if err != nil {
			s.states.State(slog.LevelWarn, "tokens", "unreadable", "tokens cannot be read, nobody gets in by one", slog.Any("error", err))
		}
		if c.token, c.bad = ok, !ok; ok {
			c.name = "token " + name
		}
	}
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, &c))
}

// forwardedFor returns the address behind a proxy on this machine, empty where
// there is no proxy or where it serves this machine only. A program that can
// leave these headers out could as well connect itself.
func forwardedFor(h http.Header) string {
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded"} {
		for _, line := range h[name] {
			for hop := range strings.SplitSeq(line, ",") {
				hop = strings.TrimSpace(hop)
				if a, err := netip.ParseAddr(hop); err != nil || !a.Unmap().IsLoopback() {
					if len(hop) > 64 || err != nil {
						hop = "behind a proxy"
					}
					return hop
				}
			}
		}
	}
	return ""
}

// allow returns an error unless the caller may do what asks for a.
func (s *Server) allow(c *caller, a access) error {
	switch {
	case c.origin == fromUnix || c.token || s.cfg.Auth == AuthOff:
		return nil
	case s.cfg.Auth == AuthAuto && (a == accessOpen || c.origin == fromLoopback):
		return nil
	}
	why, hint := "a token is needed", "send \"Authorization: Bearer TOKEN\"; \"explorer token create NAME\" on the master makes one"
	if c.bad {
		why, hint = "the token is not valid", "tokens belong to one master and can be revoked; \"explorer token list\" on the master shows them"
	}
	return failure(jsonrpc.CodeUnauthorized, why, errorData{Hint: hint})
}
