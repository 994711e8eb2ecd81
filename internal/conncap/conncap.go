package conncap

import (
	"container/heap"
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/statelog"
)

// Reasons why a connection was closed, as Options.Closed gets them.
const (
	PerAddress = "address" // too many from its address
	Total      = "total"   // too many over all
)

// Options configure a Listener.
type Options struct {
	Name string // of the listener, for logs
	// Total bounds the connections, PerAddress those from one IPv4 address or one /64 of
	// IPv6. 0: nothing does. Connections without an IP, as those of unix sockets, count
	// over all only.
	Total, PerAddress int
	// Closed is called for each connection that is closed or turned away for a bound, with
	// the reason. It must not block. nil: nobody is.
	Closed func(reason string)
	Logger *slog.Logger // nil: nothing is logged
}

// Listener is a net.Listener whose connections are bounded. Its server has to use [Handler]
// and [ConnContext], for which connections are being served is seen from these.
type Listener struct {
	net.Listener
	opts   Options
	states *statelog.Log

	mu    sync.Mutex // guards what follows
	n     int
	now   uint64 // counts the times at which a connection became quiet
	hosts map[netip.Prefix]*host
	order byQuiet // the same, the one with the most quiet connections first
}

// host is the connections from one address: how many, and those that serve no request,
// the one that has been so for longest first.
type host struct {
	n     int
	quiet list.List
	at    int // in Listener.order
}

// conn is a connection of a Listener; Listener.mu guards its fields.
type conn struct {
	net.Conn
	owner *Listener
	host  *host
	key   netip.Prefix

	requests int           // being served now
	quiet    *list.Element // in the list of its host; nil while it serves
	since    uint64        // when it became quiet
	gone     bool
}

// Listen bounds the connections of a listener.
func Listen(l net.Listener, opts Options) *Listener {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Listener{Listener: l, opts: opts, states: statelog.New(opts.Logger), hosts: map[netip.Prefix]*host{}}
}

// acceptPause is between two attempts to accept while the system gives no descriptor.
const acceptPause = 100 * time.Millisecond

// Accept waits for a connection that is within the bounds. It outlasts a want of
// descriptors, which it logs once.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		switch {
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
			l.states.State(slog.LevelError, "accept", "exhausted", "no connection can be accepted: this process, or the machine, has no file descriptor left; raise the limit (ulimit -n, LimitNOFILE)",
				"listener", l.opts.Name, "err", err)
			time.Sleep(acceptPause)
			continue
		case err != nil:
			return nil, err
		}
		l.states.Ended("accept")
		if c := l.admit(c); c != nil {
			return c, nil
		}
	}
}

// admit counts a connection in, at the cost of another one where it has to be; nil: it was
// turned away.
func (l *Listener) admit(under net.Conn) net.Conn {
	c := &conn{Conn: under, owner: l, key: hostOf(under)}
	l.mu.Lock()
	var victim *conn
	reason := ""
	switch h := l.hosts[c.key]; {
	case l.opts.PerAddress > 0 && c.key.IsValid() && h != nil && h.n >= l.opts.PerAddress:
		victim, reason = h.quietest(), PerAddress
	case l.opts.Total > 0 && l.n >= l.opts.Total:
		victim, reason = l.order[0].quietest(), Total
	}
	if victim != nil {
		l.remove(victim)
	}
	if admitted := reason == "" || victim != nil; admitted {
		l.add(c)
	} else {
		victim = c
	}
	l.mu.Unlock()
	if reason != "" {
		if l.opts.Closed != nil {
			l.opts.Closed(reason)
		}
		_ = victim.Conn.Close() // its server, if it has one, sees that by itself
	}
	if victim == c {
		return nil
	}
	return c
}

// add counts a connection in. The caller holds mu.
func (l *Listener) add(c *conn) {
	if c.host = l.hosts[c.key]; c.host == nil {
		c.host = &host{}
		l.hosts[c.key] = c.host
		heap.Push(&l.order, c.host)
	}
	c.host.n++
	l.n++
	l.rest(c)
}

// remove counts a connection out. The caller holds mu.
func (l *Listener) remove(c *conn) {
	if c.gone {
		return
	}
	c.gone = true
	l.work(c)
	l.n--
	if c.host.n--; c.host.n == 0 {
		delete(l.hosts, c.key)
		heap.Remove(&l.order, c.host.at)
	}
}

// rest puts a connection last among those of its host that serve nothing. The caller holds
// mu.
func (l *Listener) rest(c *conn) {
	l.now++
	c.since = l.now
	c.quiet = c.host.quiet.PushBack(c)
	heap.Fix(&l.order, c.host.at)
}

// work takes a connection from those that serve nothing. The caller holds mu.
func (l *Listener) work(c *conn) {
	if c.quiet != nil {
		c.host.quiet.Remove(c.quiet)
		c.quiet = nil
		heap.Fix(&l.order, c.host.at)
	}
}

// quietest returns the connection that has served nothing for longest; nil: all serve.
func (h *host) quietest() *conn {
	if e := h.quiet.Front(); e != nil {
		return e.Value.(*conn)
	}
	return nil
}

// byQuiet is a heap of hosts: the one with the most quiet connections is first, of several
// the one that has the quietest. So who has few connections is not the one to lose one.
type byQuiet []*host

func (b byQuiet) Len() int { return len(b) }
func (b byQuiet) Less(i, j int) bool {
	if n, m := b[i].quiet.Len(), b[j].quiet.Len(); n != m || n == 0 {
		return n > m
	}
	return b[i].quietest().since < b[j].quietest().since
}
func (b byQuiet) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].at, b[j].at = i, j
}
func (b *byQuiet) Push(h any) {
	h.(*host).at = len(*b)
	*b = append(*b, h.(*host))
}
func (b *byQuiet) Pop() any {
	last := len(*b) - 1
	h := (*b)[last]
	(*b)[last] = nil
	*b = (*b)[:last]
	return h
}

// Close closes the connection and counts it out.
func (c *conn) Close() error {
	c.owner.mu.Lock()
	c.owner.remove(c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}

// serve notes that a request begins (1) or has ended (-1) on the connection.
func (c *conn) serve(change int) {
	l := c.owner
	l.mu.Lock()
	defer l.mu.Unlock()
	c.requests += change
	switch {
	case c.gone:
	case c.requests > 0:
		l.work(c)
	default:
		l.rest(c)
	}
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// ConnContext has [Handler] know the connection of a request. It is for
// http.Server.ConnContext.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// Handler notes which connections are being served.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*conn); ok {
			c.serve(1)
			defer c.serve(-1)
		}
		next.ServeHTTP(w, r)
	})
}

// hostOf is the address that a connection counts for: a /64 is one customer's.
func hostOf(c net.Conn) netip.Prefix {
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := at.Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // both lengths are good
	return p
}
