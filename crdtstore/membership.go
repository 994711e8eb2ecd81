package crdtstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

// A master says something every second. After suspectAfter without a word it is
// suspect and what it hears no longer counts; after downAfter it is down.
const (
	suspectAfter = 5 * time.Second
	downAfter    = 15 * time.Second
	// What a master said before it left may arrive behind its farewell, by way of
	// others. Of an earlier version, which does not name its runs, for so long it is not
	// taken for a return.
	farewellGrace = 2 * time.Second
)

// membership is what this master knows of the others. It is kept in a file, so
// that after a restart they are looked for and shown even while they are down.
type membership struct {
	path string
	log  *slog.Logger
	wall func() time.Time // the wall clock; nil: that of the times that are passed in
	// settings and version are this master's own, to compare with.
	settings *liveness.Settings
	version  string

	mu    sync.Mutex
	peers map[string]*member
	saved []byte

	saving  sync.Mutex                // held while the file is written
	since   atomic.Pointer[time.Time] // when that began; nil: it is not written now
	changed chan struct{}             // holds a token when there is something to save
}

// member is one other master. The exported fields are kept on disk.
type member struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	RPCURLs   []string  `json:"rpc_urls"`
	UIURLs    []string  `json:"ui_urls"`
	MeshAddrs []string  `json:"mesh_addrs"`
	EdgeAddrs []string  `json:"edge_addrs,omitempty"`
	LastSeen  time.Time `json:"last_seen"`
	HasLeft   bool      `json:"left,omitempty"`

	lastHeard    time.Time // by the monotonic clock; zero: not in this run
	nodes        int
	digest       string
	inSync       bool      // as last published to watchers
	farewell     time.Time // when it said that it leaves
	skew         time.Duration
	status       MasterStatus // as last published to watchers
	joining      bool
	skewed       bool // as last published
	connectivity *liveness.Connectivity
	settings     *liveness.Settings // nil: it does not tell
	differs      string             // of its settings, as last told
	met          time.Time          // when it was first heard in this run
	same         time.Time          // when it was last known to hold what this master held; zero: not in this run
}

// membershipFile is the file of the membership, below the data directory.
const (
	membershipFile    = "masters.json"
	membershipVersion = 1
)

// knownMasters is what the file holds.
type knownMasters struct {
	Version int       `json:"version"`
	Masters []*member `json:"masters"`
}

func loadMembership(path string, log *slog.Logger) (*membership, error) {
	d := &membership{path: path, log: log, peers: map[string]*member{}, changed: make(chan struct{}, 1)}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("known masters: %w", err)
	}
	err = atomicfile.CheckVersion(b, membershipVersion)
	if errors.Is(err, atomicfile.ErrNewer) {
		return nil, fmt.Errorf("known masters: %s: %w", path, err)
	}
	var known knownMasters
	if err == nil {
		err = json.Unmarshal(b, &known)
	}
	if err != nil {
		// Nothing in it is lost for good: the masters say it all again.
		log.Warn("the file of known masters cannot be read and is made anew", "path", path, "err", err)
		return d, nil
	}
	known.Masters = slices.DeleteFunc(known.Masters, func(p *member) bool { return p == nil })
	d.saved = bytes.TrimSuffix(b, []byte("\n"))
	for _, p := range known.Masters {
		p.status = p.statusAt(time.Now())
		d.peers[p.ID] = p
	}
	return d, nil
}

// metOthers reports whether a master with this data directory has met others, which
// then have its records. What cannot be read does not say so.
func metOthers(dir string) bool {
	d, err := loadMembership(filepath.Join(dir, membershipFile), slog.New(slog.DiscardHandler))
	return err == nil && len(d.peers) > 0
}

// keep saves what has changed until ctx ends. It waits for the disk, for which nobody
// waits who hears of other masters.
func (d *membership) keep(ctx context.Context) {
	for {
		select {
		case <-d.changed:
		case <-ctx.Done():
			return
		}
		if err := d.save(); err != nil {
			d.log.Warn("cannot save the known masters", "err", err)
		}
	}
}

// waiting is for how long the file has been being written.
func (d *membership) waiting() time.Duration {
	if since := d.since.Load(); since != nil {
		return time.Since(*since)
	}
	return 0
}

// saveSoon has keep save what has changed.
func (d *membership) saveSoon() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// save writes the file if anything that others should be found by has changed.
func (d *membership) save() error {
	d.saving.Lock()
	defer d.saving.Unlock()
	d.mu.Lock()
	list := make([]*member, 0, len(d.peers))
	for _, p := range d.peers {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *member) int { return cmp.Compare(a.ID, b.ID) })
	b, err := json.MarshalIndent(knownMasters{membershipVersion, list}, "", "  ")
	same := string(b) == string(d.saved) || len(list) == 0 && d.saved == nil
	d.mu.Unlock()
	if err != nil || same {
		return err
	}
	now := time.Now()
	d.since.Store(&now)
	defer d.since.Store(nil)
	if err := atomicfile.Write(d.path, append(b, '\n')); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saved = b
	return nil
}

func (d *membership) contacts() []p2p.Contact {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []p2p.Contact
	for _, p := range d.peers {
		out = append(out, p2p.Contact{ID: p.ID, Addrs: p.MeshAddrs})
	}
	return out
}

// observe notes what a master says of itself. It reports whether watchers should
// be told.
func (d *membership) observe(now time.Time, id string, m *liveness.MasterInfo, a replica.Agreement) bool {
	d.mu.Lock()
	p := d.peers[id]
	if p != nil && p.HasLeft && m.Run == "" && now.Sub(p.farewell) < farewellGrace {
		d.mu.Unlock()
		return false
	}
	isNew := p == nil
	if isNew {
		p = &member{ID: id}
		d.peers[id] = p
	}
	wall := now
	if d.wall != nil {
		wall = d.wall()
	}
	moved := p.Name != m.Name || p.Version != m.Version || !slices.Equal(p.RPCURLs, m.RPCURLs) ||
		!slices.Equal(p.UIURLs, m.UIURLs) || !slices.Equal(p.MeshAddrs, m.MeshAddrs) ||
		!slices.Equal(p.EdgeAddrs, m.EdgeAddrs) || p.HasLeft
	publish := isNew || moved || p.inSync != a.InSync || p.nodes != m.Nodes || p.status != MasterAlive
	p.Name, p.Version, p.RPCURLs, p.UIURLs, p.MeshAddrs = m.Name, m.Version, m.RPCURLs, m.UIURLs, m.MeshAddrs
	p.EdgeAddrs = m.EdgeAddrs
	p.LastSeen, p.HasLeft, p.lastHeard, p.joining, p.connectivity = wall.UTC().Round(0), false, now, m.Joining, m.Connectivity
	p.settings = m.Settings
	if p.met.IsZero() {
		p.met = now
	}
	if a.InSync {
		p.same = now
	}
	p.nodes, p.digest, p.inSync = m.Nodes, hex.EncodeToString(m.Digest), a.InSync
	p.skew = time.UnixMilli(m.Wall).Sub(wall)
	p.status = MasterAlive
	d.mu.Unlock()
	if moved {
		d.saveSoon()
	}
	return publish
}

// merged notes that a master holds all that this one held at a time, and the other way
// round.
func (d *membership) merged(id string, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.peers[id]; p != nil && p.same.Before(at) {
		p.same = at
	}
}

// name returns what people call a master.
func (d *membership) name(id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.peers[id]; p != nil {
		return p.Name
	}
	return ""
}

// ids returns the ids of all masters in it.
func (d *membership) ids() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.peers))
}

func (d *membership) left(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.peers[id]; p != nil {
		p.HasLeft, p.status, p.farewell = true, MasterLeft, time.Now()
	}
}

// sweep calls tell for every master whose status has changed by the passing of
// time.
func (d *membership) sweep(now time.Time, publish func(id string)) {
	d.mu.Lock()
	var changed []string
	for id, p := range d.peers {
		if s := d.status(now, p); s != p.status {
			p.status = s
			changed = append(changed, id)
		}
	}
	d.mu.Unlock()
	for _, id := range changed {
		publish(id)
	}
}

// status is the status of a master by what is heard of it here and by way of others.
// One that only others hear is not down. The caller holds mu.
func (d *membership) status(now time.Time, p *member) MasterStatus {
	s := p.statusAt(now)
	if s == MasterDown && len(d.heardBy(now, p.ID)) > 0 {
		return MasterSuspect
	}
	return s
}

// statusAt is the status by what is heard of it here.
func (p *member) statusAt(now time.Time) MasterStatus {
	switch age := now.Sub(p.lastHeard); {
	case p.HasLeft:
		return MasterLeft
	case p.lastHeard.IsZero() || age > downAfter:
		return MasterDown
	case age > suspectAfter:
		return MasterSuspect
	}
	return MasterAlive
}

func (d *membership) reachable(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[id]
	return p != nil && p.statusAt(time.Now()) == MasterAlive
}

// live returns the masters that are heard, in order.
func (d *membership) live(now time.Time) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for id, p := range d.peers {
		if p.statusAt(now) == MasterAlive {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// masters returns the known masters by name.
func (d *membership) masters(now time.Time, rtt func(id string) time.Duration, agreement func(id string) replica.Agreement) []Master {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]Master, 0, len(d.peers))
	for _, p := range d.peers {
		m := Master{
			ID: p.ID, Name: p.Name, RPCURLs: nonNil(p.RPCURLs), UIURLs: nonNil(p.UIURLs),
			MeshAddrs: withID(p.MeshAddrs, p.ID), EdgeAddrs: withID(p.EdgeAddrs, p.ID), Status: d.status(now, p), Version: p.Version,
			LastSeen: p.LastSeen, Nodes: p.nodes, Digest: p.digest,
			RTTms: float64(rtt(p.ID).Microseconds()) / 1000, ClockSkewS: p.skew.Seconds(),
			HeardBy: d.heardBy(now, p.ID), SettingsDiffer: []string{},
		}
		if m.Status == MasterAlive {
			m.SettingsDiffer = d.differ(p)
		}
		if p.connectivity != nil {
			m.Hears = p.connectivity.Nodes
		}
		if m.Status == MasterSuspect && len(m.HeardBy) > 0 {
			m.Reason = "other masters hear it, this one does not"
		}
		a := agreement(p.ID)
		m.InSync = a.InSync && m.Status == MasterAlive
		if !a.InSync && !a.Equal.IsZero() {
			m.LagS, m.Differs = now.Sub(a.Equal).Seconds(), a.Differs
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Master) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func withID(addrs []string, id string) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a + "/p2p/" + id
	}
	return out
}

func (c *cluster) masters() []Master {
	out := c.members.masters(time.Now(), func(id string) time.Duration {
		p, err := peer.Decode(id)
		if err != nil {
			return 0
		}
		return c.mesh.RTT(p)
	}, c.store.replica.Agreement)
	for i := range out {
		c.judge(&out[i])
	}
	return out
}

// judge marks a master that is partially connected, or not connected straight.
func (c *cluster) judge(m *Master) {
	if why := c.connectivity.why(m.ID); why != "" {
		m.PartiallyConnected, m.Reason = true, why
	}
	if id, err := peer.Decode(m.ID); err == nil && m.Status == MasterAlive {
		now, since := time.Now(), time.Time{}
		if m.Direct, since = c.plane.bothWays(now, id); !m.Direct && m.Reason == "" && now.Sub(since) >= indirectAfter {
			m.Reason = "announcements do not go straight between it and this master; they go by way of others, or are fetched"
			m.Since = c.store.cfg.seams.Wall().Add(-now.Sub(since)).Round(0).UTC()
		}
	}
	c.store.collisions.judge(m)
}

func (c *cluster) meshAddrs() []string { return withID(c.mesh.Addrs(), c.store.ID()) }
