package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/output"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// maxEvent is how many bytes an event may have: a node with its 1,000 VMs is
// far below.
const maxEvent = 16 << 20

// silence is how long a stream may be silent; masters send a comment every few
// seconds, older ones every 15.
const silence = 45 * time.Second

var errSilent = errors.New("the stream is silent")

func nodesWatch(r *remote) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Print the nodes, and then each one that changes, until interrupted",
		Long: `Print the nodes, and then each one that changes, until interrupted. With --json,
each is one line of JSON. When a master fails, another one goes on.`,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w := &watcher{follower: follower{remote: r, path: "/events?snapshot=brief"}, shown: map[string]string{}}
		w.take = w.event
		return w.run(cmd.Context())
	}
	return cmd
}

// follower follows the events of one master after the other.
type follower struct {
	*remote
	client *client.Client
	path   string
	last   string // id of the last event
	take   func(ctx context.Context, e event) error
}

// watcher prints nodes as they change.
type watcher struct {
	follower
	shown  map[string]string // what was printed last, by node
	headed bool
}

func (w *watcher) event(ctx context.Context, e event) error {
	switch e.kind {
	case "snapshot":
		return w.list(ctx)
	case string(crdtstore.NodeChange):
		return w.print(e.data)
	}
	return nil
}

// run follows until ctx ends. A master that cannot be reached at first is an
// error; later on, it may come back.
func (w *follower) run(ctx context.Context) (err error) {
	if w.client, err = w.dial(); err != nil {
		return err
	}
	defer w.client.Close()
	connected := false
	const soon = 100 * time.Millisecond // there may be another master
	for wait := soon; ; wait = min(2*wait, 15*time.Second) {
		began := time.Now()
		err := w.follow(ctx, func() { connected = true })
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // interrupted, which is how it ends
		case !connected:
			return err
		}
		if time.Since(began) > time.Minute {
			wait = soon
		}
		fmt.Fprintf(w.err, "explorer: %s; trying again in %v\n", printable(err.Error()), wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// follow takes what one stream says until it ends.
func (w *follower) follow(ctx context.Context, connected func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	header := http.Header{"Accept": {"text/event-stream"}}
	if w.last != "" {
		header.Set("Last-Event-ID", w.last)
	}
	// Connecting is bounded like a call, the stream by its silence.
	silent := time.AfterFunc(w.limit(), func() { cancel(errSilent) })
	defer silent.Stop()
	resp, err := w.client.Get(ctx, w.path, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return refusal(w.client.Endpoint(), resp.StatusCode, body)
	}
	silent.Reset(silence)
	err = readEvents(resp.Body, func() { silent.Reset(silence) }, func(e event) error {
		connected()
		if e.id != "" {
			w.last = e.id
		}
		return w.take(ctx, e)
	})
	switch {
	case errors.Is(context.Cause(ctx), errSilent):
		err = errSilent
	case err == nil, errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the stream has ended")
	}
	return fmt.Errorf("%s: %w", w.client.Endpoint(), err)
}

// refusal makes an error of an answer that is no stream.
func refusal(ep client.Endpoint, status int, body []byte) error {
	var answer struct {
		Error *jsonrpc.Error `json:"error"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.Error != nil {
		return answer.Error
	}
	return fmt.Errorf("%s answered /events with HTTP status %d", ep, status)
}

// list prints all nodes that are not as they were printed last.
func (w *watcher) list(ctx context.Context) error {
	query := map[string]any{"limit": pageSize}
	for {
		result, err := w.callOn(ctx, w.client, "list_nodes", query)
		if err != nil {
			return err
		}
		var page struct {
			Nodes []json.RawMessage `json:"nodes"`
			Next  string            `json:"next_cursor"`
		}
		if err := decodeAll(result, &page); err != nil {
			return err
		}
		for _, n := range page.Nodes {
			if err := w.print(n); err != nil {
				return err
			}
		}
		if page.Next == "" || len(page.Nodes) == 0 {
			return nil
		}
		query["cursor"] = page.Next
	}
}

// watchWidths are those of nodeHead, fixed because rows to come are not known.
var watchWidths = []int{20, 16, 16, 18, 9, 12, 12, 12, 7, 4}

// print prints a node, unless it would look as it did.
func (w *watcher) print(raw json.RawMessage) error {
	var n crdtstore.Node
	if err := decodeAll(raw, &n); err != nil {
		return err
	}
	if w.json {
		return w.printLine(raw)
	}
	if !w.headed {
		w.headed = true
		w.line(nodeHead)
	}
	cells := nodeRow(n)
	cells = cells[:len(cells)-1] // the age always changes
	key := strings.Join(cells, "\t")
	if w.shown[n.NodeID] != key {
		w.shown[n.NodeID] = key
		w.line(cells)
	}
	return nil
}

// printLine prints JSON in one line.
func (p *program) printLine(raw json.RawMessage) error {
	var line bytes.Buffer
	if err := json.Compact(&line, raw); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err := p.out.Write(line.Bytes())
	return err
}

func (w *watcher) line(cells []string) {
	var b strings.Builder
	for i, width := range watchWidths {
		b.WriteString(output.Pad(cell(cells[i]), width) + "  ")
	}
	fmt.Fprintln(w.out, strings.TrimRight(b.String(), " "))
}

// event is a server-sent event.
type event struct {
	kind, id string
	data     []byte
}

// readEvents reads a stream of server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html) and calls
// alive for every line, and take for every event, until one of them fails or
// the stream ends.
func readEvents(r io.Reader, alive func(), take func(event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxEvent)
	var e event
	some := false
	for lines.Scan() {
		alive()
		line := lines.Bytes()
		if len(line) == 0 {
			if some {
				if err := take(e); err != nil {
					return err
				}
			}
			e, some = event{}, false
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			e.kind = string(value)
		case "id":
			e.id = string(value)
		case "data":
			if some {
				e.data = append(e.data, '\n')
			}
			if e.data, some = append(e.data, value...), true; len(e.data) > maxEvent {
				return bufio.ErrTooLong
			}
		}
	}
	return lines.Err()
}
