package compute

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/serial"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

const (
	// streamWriteTimeout is how long a client may take to accept what it is sent.
	streamWriteTimeout = 30 * time.Second
	// maxTypedMessage bounds one WebSocket message from a client, in bytes.
	maxTypedMessage = 64 << 10
)

// SecretHeader carries a VM's secret in the requests for its streams, beside the
// parameter secret of the query.
const SecretHeader = "X-VM-Secret"

// streamParams are those of a request for a stream.
type streamParams struct {
	vmParams
	follow bool
	lines  int
}

// parseStream reads the parameters, of which the query may have those named. An
// empty one is one left out.
func parseStream(r *http.Request, named ...string) (p streamParams, err error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return p, invalid("query", "cannot be read: %v", err)
	}
	allowed := map[string]bool{"secret": true}
	for _, name := range named {
		allowed[name] = true
	}
	for name, values := range query {
		if !allowed[name] {
			return p, invalid(name, "is not known here")
		}
		if len(values) > 1 {
			return p, invalid(name, "is given %d times", len(values))
		}
	}
	p.SID, p.Secret, p.lines = r.PathValue("sid"), query.Get("secret"), defaultLogLines
	if secret := r.Header.Get(SecretHeader); secret != "" {
		p.Secret = secret
	}
	if err := p.validate(); err != nil {
		return p, err
	}
	if v := query.Get("follow"); v != "" {
		if p.follow, err = strconv.ParseBool(v); err != nil {
			return p, invalid("follow", "is neither true nor false")
		}
	}
	if v := query.Get("lines"); v != "" {
		if p.lines, err = strconv.Atoi(v); err != nil || p.lines < 0 || p.lines > maxLogLines {
			return p, invalid("lines", "must be a number from 0 to %d", maxLogLines)
		}
	}
	return p, nil
}

// serveLogs sends the log of a VM as lines of text.
func (s *Service) serveLogs(w http.ResponseWriter, r *http.Request) {
	p, err := parseStream(r, "follow", "lines")
	if err == nil {
		err = s.sendLogs(w, r, p)
	}
	if err != nil {
		writeError(w, err)
	}
}

// sendLogs returns an error as long as nothing is sent.
func (s *Service) sendLogs(w http.ResponseWriter, r *http.Request, p streamParams) error {
	if !p.follow {
		lines, err := s.Logs(r.Context(), p.SID, p.Secret, p.lines)
		if err != nil {
			return err
		}
		startText(w)
		for _, line := range lines {
			if _, err := io.WriteString(w, line+"\n"); err != nil {
				return nil // the client is gone
			}
		}
		return nil
	}

	log, err := s.Follow(r.Context(), p.SID, p.Secret, p.lines)
	if err != nil {
		return err
	}
	defer log.Close()
	// The limit of the server is for answers that end; that here is for each line.
	control := http.NewResponseController(w)
	send := func(text string) error {
		_ = control.SetWriteDeadline(time.Now().Add(streamWriteTimeout))
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		if err := control.Flush(); err != nil {
			return err
		}
		_ = control.SetWriteDeadline(time.Time{})
		return nil
	}
	startText(w)
	err = send("") // the first line may be long in coming
	for err == nil {
		var line string
		if line, err = log.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			s.log.Error("log cannot be followed", "sid", p.SID, "err", err)
			panic(http.ErrAbortHandler) // a log that breaks off must not look like one that ends
		}
		err = send(line + "\n")
	}
	return nil // the client is gone
}

func startText(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff") // a VM writes what it likes
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// serveConsole joins a WebSocket with the console of a VM: each message is some
// bytes of it, in either direction.
func (s *Service) serveConsole(w http.ResponseWriter, r *http.Request) {
	p, err := parseStream(r)
	if err != nil {
		writeError(w, err)
		return
	}
	console, err := s.Console(r.Context(), p.SID, p.Secret)
	if err != nil {
		writeError(w, err)
		return
	}
	defer console.Close()
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has told the client
	}
	conn.SetReadLimit(maxTypedMessage)
	typed := make(chan error, 1)
	go func() {
		typed <- typeFrom(conn, console)
		console.Close() // so that the copying below ends
	}()
	err = showOn(conn, console)
	select {
	case problem := <-typed: // why the copying ended
		err = problem
	default:
	}
	code, reason := s.whyConsoleEnds(err)
	_ = conn.Close(code, reason) // the client may be gone
}

// typeFrom types on the console what the client sends. It returns nil when the
// client is gone.
func typeFrom(conn *websocket.Conn, console io.Writer) error {
	for {
		_, keys, err := conn.Read(context.Background())
		if err != nil {
			return nil
		}
		if _, err := console.Write(keys); err != nil {
			return errNotTyped
		}
	}
}

var errNotTyped = errors.New("the VM does not take what is typed")

// showOn sends the client what the console shows, until that ends.
func showOn(conn *websocket.Conn, console io.Reader) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := console.Read(buf)
		if n > 0 {
			ctx, cancel := context.WithTimeout(context.Background(), streamWriteTimeout)
			err := conn.Write(ctx, websocket.MessageBinary, buf[:n])
			cancel()
			if err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// whyConsoleEnds is what the client reads in the last frame.
func (s *Service) whyConsoleEnds(err error) (websocket.StatusCode, string) {
	switch {
	case s.streams.isEnded():
		return websocket.StatusGoingAway, "the service is ending"
	case errors.Is(err, serial.ErrBehind):
		return websocket.StatusTryAgainLater, err.Error()
	case errors.Is(err, errNotTyped):
		return websocket.StatusInternalError, err.Error()
	default:
		return websocket.StatusNormalClosure, "the VM has stopped"
	}
}

// writeError answers with the error object that a call would get.
func writeError(w http.ResponseWriter, err error) {
	e := (*jsonrpc.Error)(nil)
	if !errors.As(err, &e) {
		panic(err) // the service's errors are error objects
	}
	status := http.StatusInternalServerError
	switch e.Code {
	case CodeVMNotFound:
		status = http.StatusNotFound
	case CodeWrongState:
		status = http.StatusConflict
	case CodeBusy:
		status = http.StatusServiceUnavailable
	case CodeNotOffered:
		status = http.StatusNotImplemented
	case jsonrpc.CodeInvalidParams:
		status = http.StatusBadRequest
	}
	body, err := json.Marshal(e)
	if err != nil {
		panic(err) // an error object of ours that cannot be JSON
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client may be gone
}
