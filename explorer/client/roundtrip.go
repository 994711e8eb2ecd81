package client

import (
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
)

// RoundTrip sends an HTTP request to the service, for programs that pass requests
// on; a Conn is an [http.RoundTripper]. Of the URL the path, below which the service
// is mounted, and the query count. Headers are sent as they are, without token. The
// context alone bounds it. Errors are [*TransportError].
//
// The request must not have a header Idempotency-Key or
// X-Idempotency-Key: net/http takes it for the leave to send a request again, and
// then it is not known what became of the first.
func (c *Conn) RoundTrip(req *http.Request) (*http.Response, error) {
	fail := func(sent bool, err error) (*http.Response, error) {
		return nil, &TransportError{URL: c.ep.URL, Sent: sent, Err: err}
	}
	base, err := url.Parse(c.url + "/")
	for _, name := range []string{HeaderOperation, "X-" + HeaderOperation} {
		if _, ok := req.Header[name]; ok {
			err = errors.New("the request has a header " + name)
		}
	}
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return fail(false, err)
	}
	var sent atomic.Bool // on the last connection that was tried; see post
	out := req.Clone(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GetConn: func(string) { sent.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	}))
	out.URL = base.JoinPath(req.URL.EscapedPath())
	out.URL.RawQuery = req.URL.RawQuery
	out.Host = ""
	resp, err := c.http.RoundTrip(out)
	if err != nil {
		return fail(sent.Load(), err)
	}
	return resp, nil
}
