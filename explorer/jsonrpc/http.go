package jsonrpc

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// maxPooled is the greatest buffer that is kept for reuse.
	maxPooled = 64 << 10
	// A body that is too long is read on for a while, so that the sender gets
	// to see the answer: one that is still writing when the connection closes
	// sees a reset.
	maxDrain     = 64 << 20
	drainTimeout = 5 * time.Second
)

var answers = sync.Pool{New: func() any { return new([]byte) }}

var contentType = []string{"application/json"}

// ServeHTTP answers the JSON-RPC request, batch or notification in the body.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		writeAnswer(w, http.StatusMethodNotAllowed, m.appendError(nil, nullID,
			invalidRequest("", "requests are sent by HTTP POST")))
		return
	}
	body, err := readBody(r)
	switch {
	case errors.Is(err, errTooLong):
		m.refuseBody(w, r)
		return
	case err != nil: // the sender hung up, or its transfer encoding is broken
		w.Header().Set("Connection", "close")
		writeAnswer(w, http.StatusBadRequest, m.appendError(nil, nullID,
			&Error{Code: CodeParse, Message: "parse error: the body ended early", Data: ErrorData{Retryable: true, Hint: "send the request again"}}))
		return
	}
	buf := answers.Get().(*[]byte)
	*buf = m.Answer(r.Context(), (*buf)[:0], body)
	if len(*buf) == 0 {
		w.WriteHeader(http.StatusNoContent)
	} else {
		*buf = append(*buf, '\n') // for people at a terminal
		writeAnswer(w, http.StatusOK, *buf)
	}
	if cap(*buf) <= maxPooled {
		answers.Put(buf)
	}
}

var errTooLong = errors.New("body too long")

// readBody reads a body into memory of its own, which handlers may keep. It
// does not believe the announced length before the bytes are there.
func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > MaxBody {
		return nil, errTooLong
	}
	size := int64(512)
	if r.ContentLength >= 0 {
		size = min(r.ContentLength, maxPooled)
	}
	// One byte more, so that the end is found without growing.
	body := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	n, err := body.ReadFrom(io.LimitReader(r.Body, MaxBody+1))
	if err == nil && n > MaxBody {
		err = errTooLong
	}
	return body.Bytes(), err
}

func (m *Mux) refuseBody(w http.ResponseWriter, r *http.Request) {
	// A sender that waits for "100 Continue" has not begun to write.
	if r.Header.Get("Expect") == "" {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainTimeout))
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
	}
	w.Header().Set("Connection", "close")
	writeAnswer(w, http.StatusRequestEntityTooLarge, m.appendError(nil, nullID, invalidRequest("",
		"a body may have "+strconv.Itoa(MaxBody)+" bytes; send less at once")))
}

// writeAnswer writes a whole answer. A caller that is gone is no error here.
func writeAnswer(w http.ResponseWriter, status int, answer []byte) {
	h := w.Header()
	h["Content-Type"] = contentType
	// net/http itself does so for short ones.
	if len(answer) > 2000 {
		h.Set("Content-Length", strconv.Itoa(len(answer)))
	}
	if status != http.StatusOK {
		w.WriteHeader(status)
	}
	_, _ = w.Write(answer)
}
