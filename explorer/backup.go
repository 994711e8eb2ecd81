package explorer

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

const (
	// maxTransfers is how many backups and restores run at a time. A restore
	// takes as much disk meanwhile as its file is long.
	maxTransfers = 4
	// transferTimeout is how long the other side may leave one piece standing.
	transferTimeout = 30 * time.Second
	// defaultMaxRestore is some millions of nodes.
	defaultMaxRestore = 4 << 30
)

// handleTransfers registers what carries whole files.
func (s *Server) handleTransfers(mux *http.ServeMux) {
	for _, prefix := range []string{"", "/explorer"} {
		mux.Handle("GET "+prefix+"/backup", s.counted("/backup", s.transfer(s.backup)))
		mux.Handle("POST "+prefix+"/restore", s.counted("/restore", s.transfer(s.restore)))
	}
}

// transfer guards a backup or a restore like a call that administers nodes.
func (s *Server) transfer(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		caller := callerOf(r.Context())
		if caller.origin != fromUnix && foreignRead(r) {
			writeProblem(w, http.StatusForbidden, "request of another web site",
				"open this address yourself, or use a program that is no browser")
			return
		}
		if err := s.allow(caller, accessAdmin); err != nil {
			wire := s.wireError(r.URL.Path, err)
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+serviceName+`"`)
			writeProblem(w, http.StatusUnauthorized, wire.Message, hintOf(wire))
			return
		}
		select {
		case s.transfers <- struct{}{}:
			defer func() { <-s.transfers }()
		default:
			w.Header().Set("Retry-After", "5")
			writeProblem(w, http.StatusServiceUnavailable, fmt.Sprintf("%d backups and restores are running", maxTransfers),
				"try again when one of them is done, or use another master")
			return
		}
		next(w, r)
	}
}

// foreignRead reports whether a page of another site is behind a GET. protect
// lets these through, since a browser keeps the answer from that page; a whole
// backup is too much to be sent for nothing.
func foreignRead(r *http.Request) bool {
	if r.Method == http.MethodPost {
		return false
	}
	var otherSites http.CrossOriginProtection
	asked := *r
	asked.Method = http.MethodPost
	return otherSites.Check(&asked) != nil
}

// backup streams the records. An answer that breaks off has no proper end, so
// that nobody takes it for a whole one.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	name := serviceName + "-" + time.Now().UTC().Format("20060102T150405Z") + ".backup"
	h := w.Header()
	out := &patientWriter{w: w, conn: http.NewResponseController(w), begin: func() {
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
		h.Set("Cache-Control", "no-store")
	}}
	if r.Method == http.MethodHead {
		out.begin()
		return
	}
	by := slog.String("caller", callerOf(r.Context()).name)
	info, err := s.store.Backup(r.Context(), out)
	switch {
	case err == nil:
		s.log.Info("backed up", by, slog.Int("nodes", info.Nodes))
	case out.begun:
		s.log.Warn("backup broke off", by, slog.Any("error", err))
		panic(http.ErrAbortHandler)
	default:
		s.writeFailure(w, r, err)
	}
}

// restore merges the backup in the body.
func (s *Server) restore(w http.ResponseWriter, r *http.Request) {
	limit := s.cfg.MaxRestore
	if r.ContentLength > limit {
		writeTooLong(w, limit)
		return
	}
	in := &patientReader{r: http.MaxBytesReader(w, r.Body, limit), conn: http.NewResponseController(w)}
	by := slog.String("caller", callerOf(r.Context()).name)
	info, err := s.store.Restore(r.Context(), in)
	var tooLong *http.MaxBytesError
	switch {
	case err == nil:
		s.log.Info("restored", by, slog.Int("nodes", info.Nodes), slog.Int("changed", info.Changed))
		writeJSON(w, http.StatusOK, mustEncode(info))
	case errors.As(in.err, &tooLong):
		writeTooLong(w, limit)
	case in.err != nil || errors.Is(err, crdtstore.ErrBackup):
		if in.err != nil {
			err = fmt.Errorf("the file broke off on its way: %w", in.err)
		}
		s.log.Info("restore refused", by, slog.Any("error", err))
		writeProblem(w, http.StatusBadRequest, err.Error(), "nothing was changed; send a whole file as /backup gave it")
	default:
		s.writeFailure(w, r, err)
	}
}

// writeFailure answers for an error that is no fault of the request.
func (s *Server) writeFailure(w http.ResponseWriter, r *http.Request, err error) {
	wire, status := s.wireError(r.URL.Path, err), http.StatusInternalServerError
	if data, ok := wire.Data.(errorData); ok && data.Retryable {
		w.Header().Set("Retry-After", "1")
		status = http.StatusServiceUnavailable
	}
	writeProblem(w, status, wire.Message, hintOf(wire))
}

func hintOf(e *jsonrpc.Error) string {
	data, _ := e.Data.(errorData)
	return data.Hint
}

func writeTooLong(w http.ResponseWriter, limit int64) {
	writeProblem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the file has more than %d bytes", limit),
		"nothing was changed; is it a backup?")
}

// writeProblem answers a request that has nothing to do with JSON-RPC.
func writeProblem(w http.ResponseWriter, status int, problem, hint string) {
	writeJSON(w, status, mustEncode(map[string]string{"error": problem, "hint": hint}))
}

// patientWriter writes an answer of any length, as long as it moves on.
type patientWriter struct {
	w     http.ResponseWriter
	conn  *http.ResponseController
	begin func() // before the first byte
	begun bool
}

func (p *patientWriter) Write(b []byte) (int, error) {
	if !p.begun {
		p.begun = true
		p.begin()
	}
	_ = p.conn.SetWriteDeadline(time.Now().Add(transferTimeout))
	return p.w.Write(b)
}

// patientReader reads a body of any length, as long as it moves on, and
// remembers why it ended too early.
type patientReader struct {
	r    io.Reader
	conn *http.ResponseController
	err  error
}

func (p *patientReader) Read(b []byte) (int, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(transferTimeout))
	n, err := p.r.Read(b)
	if err != nil {
		// From here on the answer takes its time. The server goes on reading, to
		// learn when the caller hangs up, which a deadline would look like.
		_ = p.conn.SetReadDeadline(time.Time{})
		_ = p.conn.SetWriteDeadline(time.Time{})
		if !errors.Is(err, io.EOF) && p.err == nil {
			p.err = err
		}
	}
	return n, err
}
