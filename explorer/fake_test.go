package explorer

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
)

// fakeStore is a store in memory on top of the real merge core.
type fakeStore struct {
	mu      sync.Mutex
	states  map[string]record.State
	usage   map[string]record.Usage
	beats   int
	masters []crdtstore.Master
	status  crdtstore.Status
	seenBy  []record.Observer
	health  error
	closed  bool
	events  []crdtstore.Change
	more    chan struct{} // closed and replaced at every event
	first   int           // cursors before it are forgotten

	tunnels   map[string]bool                                                  // that are here
	dialled   func(ctx context.Context, master, name string) (net.Conn, error) // by Dial; nil: no other master can be reached
	served    map[string]func(from string, conn net.Conn)
	tunnelsOf map[string][]string // masters that hold a node's tunnel

	answered []crdtstore.VM // by nodes

	endedBy string // who ended preservation

	backingUp func(context.Context, io.Writer) error // at the end of Backup
	restoring func()                                 // once Restore has read all
}

var _ store = (*fakeStore)(nil)

func newFakeStore() *fakeStore {
	return &fakeStore{
		states: map[string]record.State{}, usage: map[string]record.Usage{},
		tunnels: map[string]bool{}, tunnelsOf: map[string][]string{}, served: map[string]func(string, net.Conn){},
		masters: []crdtstore.Master{{ID: "self", Name: "alpha", Status: crdtstore.MasterSelf}},
		status:  crdtstore.Online, more: make(chan struct{}),
	}
}

func (f *fakeStore) ID() string                  { return "self" }
func (f *fakeStore) Name() string                { return "alpha" }
func (f *fakeStore) OfflineAfter() time.Duration { return 30 * time.Second }
func (f *fakeStore) SetSecret(string) error      { return nil }

func (f *fakeStore) Dial(ctx context.Context, master, name string) (net.Conn, error) {
	if f.dialled == nil {
		return nil, crdtstore.ErrUnreachable
	}
	return f.dialled(ctx, master, name)
}

func (f *fakeStore) Serve(name string, handle func(from string, conn net.Conn)) {
	f.set(func() { f.served[name] = handle })
}

func (f *fakeStore) SetTunnel(id string, open bool) {
	f.set(func() { f.tunnels[id] = open })
}

func (f *fakeStore) Acknowledged(vm crdtstore.VM) {
	f.set(func() { f.answered = append(f.answered, vm) })
}

func (f *fakeStore) EndPreservation(_ context.Context, by string) int {
	f.set(func() { f.endedBy = by })
	return 1
}

func (f *fakeStore) Health() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.health
}

func (f *fakeStore) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

func (f *fakeStore) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// encoded is everything that a request could have changed.
func (f *fakeStore) encoded() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(f.states)) {
		fmt.Fprintf(&b, "%s %x\n", id, f.states[id].Encode())
	}
	return b.String()
}

func (f *fakeStore) join(id string, news record.State) crdtstore.Node {
	f.states[id] = record.Join(f.states[id], news)
	n := f.view(id)
	f.emit(crdtstore.Change{Kind: crdtstore.NodeChange, Node: &n})
	return n
}

func (f *fakeStore) emit(e crdtstore.Change) {
	f.events = append(f.events, e)
	f.events[len(f.events)-1].Cursor = strconv.Itoa(len(f.events))
	close(f.more)
	f.more = make(chan struct{})
}

func (f *fakeStore) view(id string) crdtstore.Node {
	n := record.View(id, f.states[id])
	n.Status, n.Usage, n.SeenBy = f.status, f.usage[id], append(n.SeenBy, f.seenBy...)
	if n.Tunnel = append(n.Tunnel, f.tunnelsOf[id]...); f.tunnels[id] {
		n.Tunnel = append(n.Tunnel, f.ID())
	}
	return n
}

func (f *fakeStore) Report(_ context.Context, r crdtstore.Report) (crdtstore.Receipt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.health != nil {
		return crdtstore.Receipt{}, crdtstore.ErrUnavailable
	}
	news, err := record.Accept(f.states[r.NodeID], r, record.Acceptance{Now: time.Now().UnixMilli()})
	if err != nil {
		return crdtstore.Receipt{}, err
	}
	if !news.IsZero() {
		f.join(r.NodeID, news)
	}
	return crdtstore.Receipt{Accepted: !news.IsZero()}, nil
}

func (f *fakeStore) Beat(b crdtstore.Beat) (crdtstore.BeatResult, error) {
	if err := record.ValidNodeID(b.NodeID); err != nil {
		return crdtstore.BeatResult{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beats++
	s, known := f.states[b.NodeID]
	if s.Removed() {
		return crdtstore.BeatResult{}, &crdtstore.RefusedError{NodeID: b.NodeID, Reason: record.RefusedRemoved, Hint: "restart the agent"}
	}
	if b.Usage != nil {
		f.usage[b.NodeID] = *b.Usage
	}
	return crdtstore.BeatResult{Accepted: known, Register: !known}, nil
}

func (f *fakeStore) Node(id string) (crdtstore.Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.states[id]; !ok {
		return crdtstore.Node{}, crdtstore.ErrNotFound
	}
	return f.view(id), nil
}

func (f *fakeStore) Nodes(q crdtstore.NodeQuery) (page crdtstore.NodePage, err error) {
	if strings.HasPrefix(q.Cursor, "?") {
		return page, crdtstore.ErrCursor
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(f.states)) {
		n := f.view(id)
		if n.RemovedAt != nil && !q.IncludeRemoved {
			continue
		}
		page.Total++
		if id <= q.Cursor {
			continue
		}
		if limit := cmp.Or(q.Limit, 50); len(page.Nodes) < limit {
			page.Nodes = append(page.Nodes, n)
		} else {
			page.NextCursor = page.Nodes[limit-1].NodeID
		}
	}
	return page, nil
}

func (f *fakeStore) word(id string, say func(record.State) record.State) (crdtstore.Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.states[id]
	if !ok || s.Removed() {
		return crdtstore.Node{}, crdtstore.ErrNotFound
	}
	if f.health != nil {
		return crdtstore.Node{}, crdtstore.ErrUnavailable
	}
	return f.join(id, say(s)), nil
}

func (f *fakeStore) Drain(_ context.Context, id string, drained bool, by string) (crdtstore.Node, error) {
	value := ""
	if drained {
		value = "1"
	}
	return f.word(id, func(s record.State) record.State {
		return s.Set(time.Now().UnixMilli(), "self", by, record.FieldDrain, value)
	})
}

func (f *fakeStore) Label(_ context.Context, id string, labels map[string]*string, by string) (n crdtstore.Node, err error) {
	for k, v := range labels {
		value := record.LabelUnset
		if v != nil {
			value = "=" + *v
		}
		if n, err = f.word(id, func(s record.State) record.State {
			return s.Set(time.Now().UnixMilli(), "self", by, record.FieldLabel+k, value)
		}); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (f *fakeStore) Remove(_ context.Context, id, by, reason string) (crdtstore.Node, error) {
	return f.word(id, func(s record.State) record.State {
		return s.Remove(time.Now().UnixMilli(), "self", by, reason)
	})
}

func (f *fakeStore) VM(nodeID, sid string) (crdtstore.VM, error) {
	page, _ := f.VMs(crdtstore.VMQuery{NodeID: nodeID})
	for _, vm := range page.VMs {
		if vm.SID == sid {
			return vm, nil
		}
	}
	return crdtstore.VM{}, crdtstore.ErrNotFound
}

func (f *fakeStore) VMs(q crdtstore.VMQuery) (page crdtstore.VMPage, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(f.states)) {
		if q.NodeID == "" || q.NodeID == id {
			page.VMs = append(page.VMs, f.view(id).VMs...)
		}
	}
	page.Total = len(page.VMs)
	return page, nil
}

func (f *fakeStore) Masters() []crdtstore.Master {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.masters)
}

func (f *fakeStore) Diff(_ context.Context, master string) (crdtstore.Diff, error) {
	for _, m := range f.Masters() {
		if m.ID == master || m.Name == master {
			return crdtstore.Diff{Equal: true, Nodes: []crdtstore.NodeDiff{}}, nil
		}
	}
	return crdtstore.Diff{}, crdtstore.ErrNotFound
}

// Backup writes a line for every node.
func (f *fakeStore) Backup(ctx context.Context, w io.Writer) (info crdtstore.BackupInfo, err error) {
	if err := f.Health(); err != nil {
		return info, err
	}
	lines := f.encoded()
	for line := range strings.Lines(lines) {
		if _, err := io.WriteString(w, line); err != nil {
			return info, err
		}
		info.Nodes++
	}
	if f.backingUp != nil {
		return info, f.backingUp(ctx, w)
	}
	return info, ctx.Err()
}

// Restore counts the lines, the last of which is "end".
func (f *fakeStore) Restore(ctx context.Context, r io.Reader) (info crdtstore.BackupInfo, err error) {
	b, err := io.ReadAll(r)
	if err != nil || !strings.HasSuffix(string(b), "end") {
		return info, fmt.Errorf("%w: it is cut off", crdtstore.ErrBackup) // the store does not tell which
	}
	if f.restoring != nil {
		f.restoring()
	}
	if f.Health() != nil {
		return info, crdtstore.ErrUnavailable
	}
	return crdtstore.BackupInfo{Nodes: strings.Count(string(b), "\n"), Changed: 1}, ctx.Err()
}

func (f *fakeStore) Stats() crdtstore.Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return crdtstore.Stats{
		Nodes: stats.NodeCounts{Total: len(f.states), Online: len(f.states)}, Masters: map[string]int{"self": 1},
		VMs: stats.VMCounts{ByState: map[string]int{}}, Convergence: stats.Convergence{InSync: true},
	}
}

func (f *fakeStore) Cursor() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strconv.Itoa(len(f.events))
}

// Chronicle is what was emitted of the log, all in one page.
func (f *fakeStore) Events(q crdtstore.EventQuery) (page crdtstore.EventPage, err error) {
	if q.Cursor != "" {
		return page, crdtstore.ErrCursor
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range slices.Backward(f.events) {
		if e.Kind == crdtstore.LogChange && (q.Kind == "" || q.Kind == e.Event.Kind) {
			page.Events = append(page.Events, *e.Event)
		}
	}
	return page, nil
}

func (f *fakeStore) EventCounts() []crdtstore.EventCount {
	return []crdtstore.EventCount{{Kind: crdtstore.OperatorEvent, Type: crdtstore.EventDrained, Count: 3}}
}

func (f *fakeStore) Watch(ctx context.Context, after string, kinds ...crdtstore.ChangeKind) iter.Seq2[crdtstore.Change, error] {
	return func(yield func(crdtstore.Change, error) bool) {
		i, err := strconv.Atoi(after)
		for {
			f.mu.Lock()
			if err != nil || i > len(f.events) || i < f.first {
				f.mu.Unlock()
				yield(crdtstore.Change{}, crdtstore.ErrCursor)
				return
			}
			news, more := f.events[i:], f.more
			f.mu.Unlock()
			for _, e := range news {
				if len(kinds) > 0 && !slices.Contains(kinds, e.Kind) {
					continue
				}
				if !yield(e, nil) {
					return
				}
			}
			i += len(news)
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}
}
