package membership

import (
	"cmp"
	"encoding/hex"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
)

// Config is what a [Table] needs. Publisher is for Look only.
type Config struct {
	// Self, Name and Version are this master's own id, name and version.
	Self, Name, Version string
	// Settings are this master's own, to compare with.
	Settings *liveness.Settings
	// Began is when this run began to listen, by the monotonic clock.
	Began time.Time
	// Wall is the wall clock, for what is shown and kept.
	Wall func() time.Time
	// Path is the file of the table.
	Path      string
	Logger    *slog.Logger
	Nodes     Nodes
	Publisher Publisher
}

// Nodes is what a table asks about the nodes of the grid. It is called without the lock of
// the table, and may ask the table.
type Nodes interface {
	// NodeIDs yields the ids of the nodes that are not removed.
	NodeIDs() iter.Seq[string]
	// CountDirect counts the nodes that this master itself has heard within a limit.
	CountDirect(now time.Time, limit time.Duration) int
	// CountExclusive counts the nodes that no master but the given one has heard lately.
	CountExclusive(now time.Time, master string) int
}

// Table is what this master knows of the others. Its methods may be called concurrently,
// but for Look. Only Load, Keep and Save wait for the disk.
type Table struct {
	cfg Config

	mu      sync.Mutex // guards what follows, up to the next blank line
	members map[string]*member
	partial connectivity
	saved   []byte // what the file holds

	saving  sync.Mutex                // held while the file is written
	writing atomic.Pointer[time.Time] // since when it is being written; nil: it is not
	changed chan struct{}             // holds a token when there is something to save

	direct  directCounter
	noticed noticed           // of the goroutine that calls Look
	absent  map[string]string // likewise: why configured peers were never met, as published
}

// Info is what a master last said of itself, as far as the file keeps it.
type Info struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	RPCURLs   []string  `json:"rpc_urls"`
	UIURLs    []string  `json:"ui_urls"`
	MeshAddrs []string  `json:"mesh_addrs"`
	EdgeAddrs []string  `json:"edge_addrs,omitempty"`
	LastSeen  time.Time `json:"last_seen"` // by this master's wall clock
	HasLeft   bool      `json:"left,omitempty"`
}

// Run is what is known of a master in this run of ours only; times by the monotonic clock.
type Run struct {
	Heard   time.Time     // when it was last heard; zero: not in this run
	Met     time.Time     // when it was first heard
	Same    time.Time     // when it was last known to hold what this master held; zero: never
	Joining bool          // it does not have all records yet
	Nodes   int           // how many records it holds
	Digest  string        // of its records, in hex
	Skew    time.Duration // how far its wall clock is ahead of this master's
}

// Member is another master as it is known at one moment.
type Member struct {
	Info
	Run
	Status  Status
	Hears   int      // nodes that it hears itself
	HeardBy []string // ids of the masters that are alive and say that they hear it
	// SettingsDiffer has each setting that should agree with this master's and does not, of
	// a master that is alive.
	SettingsDiffer []string
}

// Observer is a master, this one or another, as one that hears nodes.
type Observer struct {
	ID           string
	Reachable    bool
	OfflineAfter time.Duration // by which it judges silence
}

// member is another master. All below Run but farewell is as last heard or published.
type member struct {
	Info
	Run
	farewell     time.Time // when it said that it leaves
	connectivity *liveness.Connectivity
	settings     *liveness.Settings // nil: it does not tell

	inSync  bool
	status  Status // as last published
	skewed  bool   // likewise
	differs string // likewise: of its settings
}

// New returns an empty table.
func New(cfg Config) *Table {
	return &Table{cfg: cfg, members: map[string]*member{}, changed: make(chan struct{}, 1)}
}

// Bounds on what is taken from one pulse.
const (
	// MaxObserved bounds the list of masters that a master says it hears.
	MaxObserved = 64
	maxURLs     = 16
)

// Bound cuts what another master says of itself to what is taken of it.
func Bound(m *liveness.MasterInfo) {
	for _, list := range []*[]string{&m.RPCURLs, &m.UIURLs, &m.MeshAddrs, &m.EdgeAddrs} {
		*list = (*list)[:min(len(*list), maxURLs)]
	}
	if h := m.Connectivity; h != nil {
		h.Masters = h.Masters[:min(len(h.Masters), MaxObserved)]
		h.Holds = h.Holds[:min(len(h.Holds), MaxObserved)]
	}
	boundSettings(m.Settings)
}

// Observe notes what a master says of itself, and whether its records are as ours. It
// reports whether it is to be shown anew, and whether it was not alive until now.
func (t *Table) Observe(now time.Time, id string, m *liveness.MasterInfo, inSync bool) (shown, back bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.members[id]
	if p != nil && p.HasLeft && m.Run == "" && now.Sub(p.farewell) < farewellGrace {
		return false, false
	}
	isNew := p == nil
	if isNew {
		p = &member{Info: Info{ID: id}}
		t.members[id] = p
	}
	back = p.statusAt(now) != Alive
	wall := t.cfg.Wall()
	moved := p.Name != m.Name || p.Version != m.Version || !slices.Equal(p.RPCURLs, m.RPCURLs) ||
		!slices.Equal(p.UIURLs, m.UIURLs) || !slices.Equal(p.MeshAddrs, m.MeshAddrs) ||
		!slices.Equal(p.EdgeAddrs, m.EdgeAddrs) || p.HasLeft
	shown = isNew || moved || p.inSync != inSync || p.Nodes != m.Nodes || p.status != Alive
	p.Info = Info{
		ID: id, Name: m.Name, Version: m.Version, RPCURLs: m.RPCURLs, UIURLs: m.UIURLs,
		MeshAddrs: m.MeshAddrs, EdgeAddrs: m.EdgeAddrs, LastSeen: wall.UTC().Round(0),
	}
	p.Heard, p.Joining, p.Nodes, p.Digest = now, m.Joining, m.Nodes, hex.EncodeToString(m.Digest)
	p.Skew = time.UnixMilli(m.Wall).Sub(wall)
	if p.Met.IsZero() {
		p.Met = now
	}
	if inSync {
		p.Same = now
	}
	p.connectivity, p.settings, p.inSync, p.status = m.Connectivity, m.Settings, inSync, Alive
	if moved {
		t.saveSoon()
	}
	return shown, back
}

// Merged notes that a master holds all that this one held at a time, and the other way
// round.
func (t *Table) Merged(id string, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.members[id]; p != nil && p.Same.Before(at) {
		p.Same = at
	}
}

// Left notes that a master has gone on purpose.
func (t *Table) Left(now time.Time, id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.members[id]; p != nil {
		p.HasLeft, p.status, p.farewell = true, Left, now
	}
}

// Name returns what people call a master, this one too, or what there is of its id.
func (t *Table) Name(id string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.name(id)
}

// name is Name for callers that hold mu.
func (t *Table) name(id string) string {
	if id == t.cfg.Self {
		return t.cfg.Name
	}
	if p := t.members[id]; p != nil && p.Name != "" {
		return p.Name
	}
	return "master " + id[max(0, len(id)-8):]
}

// Has reports whether a master is known.
func (t *Table) Has(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.members[id] != nil
}

// IDs returns the ids of the masters that are known.
func (t *Table) IDs() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.members))
}

// Alive returns the ids of the masters that are heard, in order.
func (t *Table) Alive(now time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ids(func(p *member) bool { return p.statusAt(now) == Alive })
}

// HeardBy returns the masters that are alive and say that they hear another one, in order.
func (t *Table) HeardBy(now time.Time, id string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heardBy(now, id)
}

// Members returns the masters that are known, in the order of their ids.
func (t *Table) Members(now time.Time) []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Member, 0, len(t.members))
	for _, p := range t.sorted() {
		m := Member{Info: p.Info, Run: p.Run, Status: t.status(now, p), HeardBy: t.heardBy(now, p.ID), SettingsDiffer: []string{}}
		if m.Status == Alive {
			m.SettingsDiffer = t.differ(p)
		}
		if p.connectivity != nil {
			m.Hears = p.connectivity.Nodes
		}
		out = append(out, m)
	}
	return out
}

// Observer returns what is known of a master as one that hears nodes.
func (t *Table) Observer(now time.Time, id string) Observer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.observer(now, id)
}

// Observers returns all masters, this one first.
func (t *Table) Observers(now time.Time) []Observer {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []Observer{t.observer(now, t.cfg.Self)}
	for _, p := range t.sorted() {
		out = append(out, t.observer(now, p.ID))
	}
	return out
}

// observer has a master that does not tell its limit judge like this one. The caller holds mu.
func (t *Table) observer(now time.Time, id string) Observer {
	p := t.members[id]
	o := Observer{ID: id, Reachable: id == t.cfg.Self || p != nil && p.statusAt(now) == Alive}
	if p != nil && p.settings != nil {
		o.OfflineAfter = p.settings.OfflineAfter
	}
	o.OfflineAfter = cmp.Or(o.OfflineAfter, t.cfg.Settings.OfflineAfter)
	return o
}

// longestOfflineAfter is the longest among the masters that are heard: whoever counts
// nodes to compare the count with another master's counts them by this.
func (t *Table) longestOfflineAfter(now time.Time) (longest time.Duration) {
	for _, o := range t.Observers(now) {
		if o.Reachable {
			longest = max(longest, o.OfflineAfter)
		}
	}
	return longest
}

// sorted returns the masters in the order of their ids. The caller holds mu.
func (t *Table) sorted() []*member {
	return slices.SortedFunc(maps.Values(t.members), func(a, b *member) int { return cmp.Compare(a.ID, b.ID) })
}

// ids returns the ids of the masters of which something is so, in order. The caller holds mu.
func (t *Table) ids(is func(*member) bool) []string {
	out := []string{}
	for id, p := range t.members {
		if is(p) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}
