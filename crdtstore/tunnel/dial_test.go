package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
	"github.com/multiformats/go-varint"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
)

// negotiate has the other end of a stream speak the protocol of calls, and then go on.
func negotiate(then func(net.Conn)) func(net.Conn) {
	mux := multistream.NewMultistreamMuxer[protocol.ID]()
	mux.AddHandler(computeProtocol, nil)
	return func(there net.Conn) {
		defer there.Close()
		if _, _, err := mux.Negotiate(there); err == nil {
			then(there)
		}
	}
}

func hang(there net.Conn) { _, _ = io.Copy(io.Discard, there) }

func echo(there net.Conn) {
	_, _ = there.Write([]byte{ready})
	_, _ = io.Copy(there, there)
}

// A connection counts as open when the agent has said so, within 2 s, and then stays for
// as long as it is used.
func TestDialWaitsForTheAgent(t *testing.T) {
	for name, c := range map[string]struct {
		agent func(net.Conn)
		takes time.Duration
		ok    bool
	}{
		"answers":          {negotiate(echo), 0, true},
		"refuses":          {negotiate(func(there net.Conn) { _, _ = there.Write([]byte{refused}) }), 0, false},
		"does not answer":  {negotiate(hang), 2 * time.Second, false},
		"is frozen":        {hang, 2 * time.Second, false},
		"has gone":         {func(there net.Conn) { there.Close() }, 0, false},
		"was never there":  {nil, 0, false},
		"says it too late": {negotiate(func(there net.Conn) { time.Sleep(2100 * time.Millisecond); echo(there) }), 2 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLeases()
				_, conn, _, _ := l.connect(t, "n", "key", 7)
				conn.dialled = c.agent
				defer time.Sleep(time.Second) // until an agent that is too late has noticed
				began := time.Now()
				to, err := l.Dial(t.Context(), "n")
				if took := time.Since(began); took != c.takes {
					t.Errorf("it took %v, want %v", took, c.takes)
				}
				if err == nil {
					defer to.Close()
				}
				if !c.ok {
					if !errors.Is(err, ErrNone) {
						t.Errorf("error %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				if got := say(t, to, "hello"); got != "hello" {
					t.Errorf("it says %q", got)
				}
			})
		})
	}
}

// Who is no more admitted is not dialled, and loses the tunnel at once.
func TestDialOfWhoIsNoMoreAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		_, conn, _, done := l.connect(t, "n", "key", 7)
		conn.dialled = func(there net.Conn) { t.Error("it was dialled"); there.Close() }
		l.set(errors.New("removed"))
		if _, err := l.Dial(t.Context(), "n"); !errors.Is(err, ErrNone) {
			t.Errorf("error %v", err)
		}
		if !ended(done) || l.Len() != 0 {
			t.Error("it has its tunnel still")
		}
	})
}

// The deadline of a stream is that of the context, and at most the given time; the end of
// the context ends what waits; and all of it is lifted.
func TestWithin(t *testing.T) {
	for name, c := range map[string]struct{ context, most, want time.Duration }{
		"the context": {time.Second, time.Minute, time.Second},
		"the most":    {time.Minute, time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, _ := net.Pipe()
				ctx, cancel := context.WithTimeout(t.Context(), c.context)
				defer cancel()
				lift := within(ctx, here, c.most)
				began := time.Now()
				if _, err := here.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != c.want {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
				lift()
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		lift := within(ctx, here, time.Minute)
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		if _, err := here.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("cancelled, after %v: %v", time.Since(began), err)
		}
		lift()
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		within(ctx, here, time.Second)()
		time.AfterFunc(time.Hour, func() { _, _ = there.Write([]byte{1}) })
		if _, err := here.Read(make([]byte, 1)); err != nil {
			t.Errorf("it was lifted: %v", err)
		}
	})
}

// Memory is taken as bytes come.
func TestFrameTakesWhatComes(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		f := framed{s: &pipe{net: readConn{Reader: bytes.NewReader(varint.ToUvarint(maxAsk))}}, most: maxAsk}
		if _, err := f.read(); err == nil {
			t.Fatal("a frame was read that did not come")
		}
	}
	runtime.ReadMemStats(&after)
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 4<<20 {
		t.Errorf("%d bytes were taken for what did not come", taken)
	}
	f := framed{s: &pipe{net: readConn{Reader: bytes.NewReader(varint.ToUvarint(maxAsk + 1))}}, most: maxAsk}
	if _, err := f.read(); err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a frame that is too long: %v", err)
	}
}

// readConn is a connection from which something comes.
type readConn struct {
	net.Conn
	io.Reader
}

func (r readConn) Read(b []byte) (int, error) { return r.Reader.Read(b) }

// Whoever asks for a splice has to say soon to whom, and shortly; then the two ends are
// joined for as long as they like.
func TestSpliceInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		l.ctx = t.Context()
		here, there := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.Splice(there)
		}()
		time.Sleep(2*time.Second - 1)
		if ended(done) {
			t.Error("it is ended before its time")
		}
		time.Sleep(time.Nanosecond)
		if !ended(done) {
			t.Error("who asks for nobody keeps a splice")
		}
		here.Close()

		if name, err := readName(bytes.NewReader(append(varint.ToUvarint(maxNode), make([]byte, maxNode)...))); err != nil || len(name) != maxNode {
			t.Errorf("a name of %d bytes: %v", len(name), err)
		}
		if _, err := readName(bytes.NewReader(append(varint.ToUvarint(maxNode+1), make([]byte, maxNode+1)...))); err == nil {
			t.Error("a name that is too long is taken")
		}

		_, conn, _, _ := l.connect(t, "n", "key", 7)
		conn.dialled = negotiate(echo)
		here, there = net.Pipe()
		go l.Splice(there)
		if err := Through(t.Context(), here, "n"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			// The lease is not beaten here, and ends; what runs over it does not.
			time.Sleep(time.Hour)
			if got := say(t, here, "hello"); got != "hello" {
				t.Errorf("it says %q", got)
			}
		}
		here.Close()
	})
}

// The end of a direction is passed on, and the other direction goes on; a direction that
// breaks ends both.
func TestPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := func() (*pipe, net.Conn) {
			here, there := net.Pipe()
			t.Cleanup(func() { here.Close() })
			return &pipe{net: here, conn: &pipeConn{}, half: true}, there
		}
		open := func(c net.Conn) bool {
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			_, err := c.Read(make([]byte, 1))
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
		to, toEnd := end()
		from := &pipe{net: readConn{Reader: bytes.NewReader(nil)}, conn: &pipeConn{}}
		if pass(p2p.Conn(to), p2p.Conn(from)); !to.halfClosed || !open(toEnd) {
			t.Error("an end is not passed on as an end")
		}

		to, toEnd = end()
		from, fromEnd := end()
		_ = from.SetReadDeadline(time.Now()) // it breaks
		if pass(p2p.Conn(to), p2p.Conn(from)); to.halfClosed || open(toEnd) || open(fromEnd) {
			t.Error("what broke goes on, or looks like an end")
		}
	})
}
