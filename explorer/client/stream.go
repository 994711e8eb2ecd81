package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// quiet is for how long a stream may say nothing before its service is asked for
	// a sign of life, and signWithin how long that may take. Together with connecting
	// elsewhere they stay below 5 s.
	quiet      = time.Second
	signWithin = 2 * time.Second
)

// errFrozen: a service holds its connections open and says nothing.
var errFrozen = errors.New("it gives no sign of life any more")

// get sends an HTTP GET to the services in turn, until one has answered what good
// takes. A later one is asked beside one that is silent. Where there are others, the
// body is watched; see [Client.Get].
func (c *Client) get(ctx context.Context, path string, header http.Header, good func(*Conn, *http.Response) (next bool, err error)) (*http.Response, error) {
	type answer struct {
		resp *http.Response
		conn *Conn
	}
	a, done, err := race(ctx, c, func(ctx context.Context, conn *Conn) (answer, bool, error) {
		resp, err := conn.Get(ctx, path, header) //nolint:bodyclose // the caller does
		if err != nil {
			return answer{}, true, err
		}
		next, err := good(conn, resp)
		return answer{resp, conn}, next, err
	}, func(a answer) { _ = a.resp.Body.Close() })
	if err != nil {
		done()
		return nil, err
	}
	body := closing(a.resp.Body, done)
	if _, upgraded := body.(io.Writer); !upgraded && len(c.conns) > 1 {
		body = c.watched(ctx, a.conn, body)
	}
	a.resp.Body = body
	return a.resp, nil
}

// anyAnswer takes whatever a service answers.
func anyAnswer(*Conn, *http.Response) (bool, error) { return false, nil }

// closing is a body that calls a function when it is closed. That of an upgraded
// connection can still be written to.
func closing(body io.ReadCloser, done func()) io.ReadCloser {
	c := closer{body, done}
	if w, ok := body.(io.Writer); ok {
		return struct {
			closer
			io.Writer
		}{c, w}
	}
	return c
}

type closer struct {
	io.ReadCloser
	done func()
}

func (c closer) Close() error {
	defer c.done()
	return c.ReadCloser.Close()
}

// watched watches the service that sends a body, until that is closed.
func (c *Client) watched(ctx context.Context, conn *Conn, body io.ReadCloser) io.ReadCloser {
	w := &watchedBody{ReadCloser: body, conn: conn, began: time.Now()}
	ctx, w.stop = context.WithCancel(ctx)
	w.watching.Go(func() {
		if w.watch(ctx) {
			c.leave(conn)
			_ = w.ReadCloser.Close() // ends Read
		}
	})
	return w
}

// leave goes on to the next service, if conn is the current one.
func (c *Client) leave(conn *Conn) {
	at := c.current.Load()
	if c.conns[at] == conn {
		c.current.CompareAndSwap(at, (at+1)%uint32(len(c.conns)))
	}
}

// watchedBody is a body whose service is watched.
type watchedBody struct {
	io.ReadCloser
	conn     *Conn
	stop     context.CancelFunc
	watching sync.WaitGroup
	began    time.Time
	last     atomic.Int64 // when something came, in nanoseconds since began
	frozen   atomic.Bool
}

func (w *watchedBody) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	if n > 0 {
		w.last.Store(int64(time.Since(w.began)))
	}
	if err != nil && w.frozen.Load() {
		err = &TransportError{URL: w.conn.ep.URL, Err: errFrozen}
	}
	return n, err
}

func (w *watchedBody) Close() error {
	w.stop()
	defer w.watching.Wait()
	return w.ReadCloser.Close()
}

// watch returns true when the service is frozen, and false when ctx ends.
func (w *watchedBody) watch(ctx context.Context) bool {
	wait := time.NewTimer(quiet)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-wait.C:
		}
		seen := w.last.Load()
		if left := quiet - (time.Since(w.began) - time.Duration(seen)); left > 0 {
			wait.Reset(left)
			continue
		}
		err := w.signOfLife(ctx)
		if ctx.Err() != nil {
			return false
		}
		if err != nil && w.last.Load() == seen {
			w.frozen.Store(true)
			return true
		}
		wait.Reset(quiet)
		if err != nil {
			wait.Reset(0) // it has spoken meanwhile
		}
	}
}

// signOfLife asks for anything that the service answers.
func (w *watchedBody) signOfLife(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, signWithin)
	defer cancel()
	resp, err := w.conn.Get(ctx, "/health", nil)
	if err != nil {
		return fmt.Errorf("sign of life: %w", err)
	}
	defer resp.Body.Close()
	_, err = io.CopyN(io.Discard, resp.Body, 64<<10) // to the end, so that the connection is kept
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}
