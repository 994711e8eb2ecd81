package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

const (
	maxStreams         = 512
	keepAlive          = 5 * time.Second
	streamWriteTimeout = 10 * time.Second // how long a reader may leave one write standing
	snapshotPage       = 500
)

// events serves /events: a snapshot, then every change. With ?snapshot=brief
// the snapshot leaves out nodes and VMs, for readers that ask for what they
// show; it still tells them when to ask anew. With ?log=1 what happened is told
// too, by the same cursors; what happened before a snapshot, the method events lists.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "5")
		writeError(w, http.StatusServiceUnavailable, failure(jsonrpc.CodeLimit,
			fmt.Sprintf("all %d event streams are taken", maxStreams),
			errorData{Retryable: true, Hint: "close some, or read from another master", RetryAfterS: 5}))
		return
	}
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()

	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	out := &stream{w: w, conn: http.NewResponseController(w)}
	// The server's deadlines are for requests that end.
	_ = out.conn.SetReadDeadline(time.Time{})

	out.brief = r.URL.Query().Get("snapshot") == "brief"
	out.log = r.URL.Query().Get("log") == "1"

	err := s.stream(r.Context(), out, r.Header.Get("Last-Event-ID"))
	if err != nil && !errors.Is(err, context.Canceled) && r.Context().Err() == nil {
		s.metrics.dropped.Inc()
		s.log.Debug("event stream dropped", slog.String("caller", callerOf(r.Context()).name), slog.Any("error", err))
	}
}

// stream sends events until the context ends or the reader is lost. Where it
// cannot go on from after, it starts with a snapshot.
func (s *Server) stream(ctx context.Context, out *stream, after string) error {
	ctx, cancel := s.untilStop(ctx)
	defer cancel()
	if after == "" {
		cursor, err := s.snapshot(out)
		if err != nil {
			return err
		}
		after = cursor
	}
	for {
		err := s.follow(ctx, out, after)
		if !errors.Is(err, crdtstore.ErrCursor) {
			return err
		}
		if after, err = s.snapshot(out); err != nil {
			return err
		}
	}
}

// follow sends the events after a cursor.
func (s *Server) follow(ctx context.Context, out *stream, after string) error {
	ctx, cancel := context.WithCancel(ctx)
	events, ended := make(chan crdtstore.Change, 64), make(chan error, 1)
	kinds := []crdtstore.ChangeKind{crdtstore.NodeChange, crdtstore.VMChange, crdtstore.MasterChange}
	if out.log {
		kinds = nil // all
	}
	go func() {
		defer close(events)
		for e, err := range s.store.Watch(ctx, after, kinds...) {
			if err != nil {
				ended <- err
				return
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range events { // until the goroutine is gone
		}
	}()
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	if err := out.comment("following"); err != nil {
		return err
	}
	for {
		select {
		case e, ok := <-events:
			if !ok {
				select {
				case err := <-ended:
					return err
				default:
					return ctx.Err()
				}
			}
			if err := out.event(e); err != nil {
				return err
			}
			if len(events) > 0 {
				continue // and flush once
			}
			if err := out.flush(); err != nil {
				return err
			}
		case <-tick.C:
			if err := out.comment("alive"); err != nil {
				return err
			}
		}
	}
}

// snapshot sends everything as one event, reading page by page so that its
// size is not held in memory, and returns the cursor to go on from. The cursor
// is taken first: a change meanwhile comes a second time, never not at all.
func (s *Server) snapshot(out *stream) (cursor string, err error) {
	cursor = s.store.Cursor()
	out.begin("snapshot", cursor)
	head := mustEncode(map[string]any{"self": s.store.ID(), "masters": s.masterList(), "stats": s.store.Stats()})
	if out.brief {
		out.write(head)
		out.write([]byte("\n\n"))
		return cursor, out.flush()
	}
	out.write(head[:len(head)-1]) // without the brace at the end
	out.write([]byte(`,"nodes":[`))
	sep := ""
	for q := (crdtstore.NodeQuery{Limit: snapshotPage}); ; {
		page, err := s.store.Nodes(q)
		if err != nil {
			return "", err
		}
		for i := range page.Nodes {
			io.WriteString(out, sep)
			out.encode(&page.Nodes[i])
			sep = ","
		}
		if err := out.flush(); err != nil {
			return "", err
		}
		if q.Cursor = page.NextCursor; q.Cursor == "" {
			break
		}
	}
	out.write([]byte(`],"vms":[`))
	sep = ""
	for q := (crdtstore.VMQuery{Limit: snapshotPage}); ; {
		page, err := s.store.VMs(q)
		if err != nil {
			return "", err
		}
		for i := range page.VMs {
			io.WriteString(out, sep)
			out.encode(&page.VMs[i])
			sep = ","
		}
		if err := out.flush(); err != nil {
			return "", err
		}
		if q.Cursor = page.NextCursor; q.Cursor == "" {
			break
		}
	}
	out.write([]byte("]}\n\n"))
	return cursor, out.flush()
}

// stream writes server-sent events. The first error stays.
type stream struct {
	w     http.ResponseWriter
	conn  *http.ResponseController
	brief bool // no lists in snapshots
	log   bool // with what happened
	err   error
}

// Write gives the reader a while for every piece, however large the whole is.
func (o *stream) Write(b []byte) (int, error) {
	o.write(b)
	return len(b), o.err
}

func (o *stream) write(b []byte) {
	if o.err == nil {
		_ = o.conn.SetWriteDeadline(time.Now().Add(streamWriteTimeout))
		_, o.err = o.w.Write(b)
	}
}

func (o *stream) flush() error {
	if o.err == nil {
		o.err = o.conn.Flush()
	}
	return o.err
}

func (o *stream) begin(kind, cursor string) {
	cursor = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == 0 {
			return -1
		}
		return r
	}, cursor)
	o.write([]byte("event: " + kind + "\nid: " + cursor + "\ndata: "))
}

func (o *stream) encode(v any) {
	b, err := json.Marshal(v)
	if err != nil && o.err == nil {
		o.err = err
	}
	o.write(b)
}

func (o *stream) event(e crdtstore.Change) error {
	var what any
	switch e.Kind {
	case crdtstore.NodeChange:
		what = e.Node
	case crdtstore.VMChange:
		what = e.VM
	case crdtstore.MasterChange:
		what = e.Master
	case crdtstore.LogChange:
		what = e.Event
	default:
		return nil
	}
	o.begin(string(e.Kind), e.Cursor)
	o.encode(what)
	o.write([]byte("\n\n"))
	return o.err
}

func (o *stream) comment(text string) error {
	o.write([]byte(": " + text + "\n\n"))
	return o.flush()
}

func (s *Server) eventMethods() []method {
	return []method{
		takes(method{
			name:    "events",
			summary: "Lists what happened to nodes, VMs and masters, and what operators said, the latest first, as far as this master remembers it.",
			errors:  []int{jsonrpc.CodeUnknownCursor},
		}, s.eventPages),
	}
}

func (s *Server) eventPages(_ context.Context, q crdtstore.EventQuery) (crdtstore.EventPage, error) {
	if err := validLimit(q.Limit); err != nil {
		return crdtstore.EventPage{}, err
	}
	page, err := s.store.Events(q)
	if page.Events == nil {
		page.Events = []crdtstore.Event{}
	}
	return page, err
}
