package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// StatusError is what a service answered to a [Client.Download] or
// [Client.Upload] instead of what was asked for.
type StatusError struct {
	URL     string // of the endpoint
	Status  int    // of HTTP
	Message string
	Hint    string // what to do about it; may be empty
}

func (e *StatusError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("%s answered with HTTP status %d; is it a master, and of this version?", e.URL, e.Status)
	}
	return e.Message
}

// Download sends an HTTP GET with further headers and returns the body of a good
// answer, which the caller closes. A body that does not end properly fails with an error other
// than io.EOF. Like [Client.Get] it goes on to the next service where one cannot
// be reached, and also where one cannot serve, and the body fails where its service
// freezes. Errors: [*StatusError],
// [*TransportError].
func (c *Client) Download(ctx context.Context, path string, header http.Header) (io.ReadCloser, error) {
	resp, err := c.get(ctx, path, header, func(conn *Conn, resp *http.Response) (next bool, err error) {
		_, err = conn.good(resp)
		return unavailable(err), err
	})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Upload sends a body in an HTTP POST and returns the body of a good answer,
// which the caller closes. The service is asked first whether it wants the body;
// Upload goes on to the next one as long as nothing of it was read, also where it
// says nothing for 3 s. Where the
// service answers before it has read all, the body may still be read for a moment
// after Upload has returned. Errors: [*StatusError], [*TransportError].
func (c *Client) Upload(ctx context.Context, path string, body io.Reader) (answer io.ReadCloser, err error) {
	in := &watched{r: body}
	left := len(c.conns)
	err = c.each(ctx, func(conn *Conn) (next bool, err error) {
		ctx, cancel := context.WithCancel(ctx)
		defer func() {
			if err != nil {
				cancel()
			}
		}()
		if left--; left > 0 {
			defer time.AfterFunc(min(switchAfter, c.opts.Timeout), func() {
				if !in.read.Load() {
					cancel()
				}
			}).Stop()
		}
		// The transport closes a body when it is done, which may be too early here.
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, conn.url+path, io.NopCloser(in))
		if err != nil {
			return false, &TransportError{URL: conn.ep.URL, Err: err}
		}
		conn.header(req)
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("Expect", "100-continue")
		resp, err := conn.http.RoundTrip(req)
		if err != nil {
			return !in.read.Load(), &TransportError{URL: conn.ep.URL, Sent: in.read.Load(), Err: err}
		}
		if answer, err = conn.good(resp); err == nil {
			answer = closing(answer, cancel)
		}
		return unavailable(err) && !in.read.Load(), err
	})
	return answer, err
}

// HTTP returns an HTTP client for libraries that need one, such as those for
// WebSockets. It sends GET requests like [Client.Download], to the first service
// that can serve; of their URL only path and query count. Errors are those of
// Download.
func (c *Client) HTTP() *http.Client { return &http.Client{Transport: getter{c}} }

type getter struct{ client *Client }

func (g getter) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	if req.Method != http.MethodGet || req.Body != nil {
		return nil, errors.New("only GET without a body can go to any of several services")
	}
	resp, err = g.client.get(req.Context(), req.URL.RequestURI(), req.Header, func(conn *Conn, resp *http.Response) (next bool, err error) {
		if resp.StatusCode != http.StatusSwitchingProtocols {
			_, err = conn.good(resp)
		}
		return unavailable(err), err
	})
	return resp, err
}

// good returns the body of an answer with status 200, else an error of what the
// service said.
func (c *Conn) good(resp *http.Response) (io.ReadCloser, error) {
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	e := &StatusError{URL: c.ep.URL, Status: resp.StatusCode}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	// The error is a text, or an object where the request came no further than
	// to what all requests pass.
	var flat struct{ Error, Hint string }
	var rpc struct{ Error *jsonrpc.Error }
	if json.Unmarshal(text, &flat) == nil {
		e.Message, e.Hint = flat.Error, flat.Hint
	} else if json.Unmarshal(text, &rpc) == nil && rpc.Error != nil {
		var data jsonrpc.ErrorData
		_ = rpc.Error.DecodeData(&data)
		e.Message, e.Hint = rpc.Error.Message, data.Hint
	}
	return nil, e
}

func unavailable(err error) bool {
	var e *StatusError
	return errors.As(err, &e) && e.Status == http.StatusServiceUnavailable
}

// watched tells whether anything was read, even while it is.
type watched struct {
	r    io.Reader
	read atomic.Bool
}

func (w *watched) Read(b []byte) (int, error) {
	w.read.Store(true)
	return w.r.Read(b)
}
