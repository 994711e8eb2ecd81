package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/antientropy"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dagsync"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/gossip"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/runs"
)

const (
	byeProtocol protocol.ID = "/hero-explorer/bye/1"

	pulseEvery = time.Second
	// pulseGap is the least time between two pulses, when there is news.
	pulseGap = 50 * time.Millisecond
	// fullStateWindow is how long after another master has come everything that this
	// one hears is told, not only what is new: the other has missed the rest,
	// and may not hear the first pulses after it was admitted.
	fullStateWindow = 3 * time.Second
	maxPulls        = 4 // transfers to other masters at one time
)

// cluster is this master's part among several: it sends what is written here,
// takes what is written elsewhere, and tells and hears pulses.
type cluster struct {
	store  *Store
	mesh   *p2p.Mesh
	gossip *gossip.Gossip
	ctx    context.Context // of the loops and transfers; ends with close
	cancel context.CancelFunc
	work   sync.WaitGroup
	serves chan struct{} // a slot for each transfer to another master

	leaving atomic.Bool
	plane   *plane
	// announcements is how many this run has made.
	announcements atomic.Uint64
	found         []runs.Collision // of the goroutine that sends pulses

	mu          sync.Mutex // guards what follows
	pulls       map[peer.ID]*pulling
	follows     map[peer.ID]*latest // whose summaries are acted on, and what waits meanwhile
	later       map[peer.ID]bool    // from whom blocks are to be fetched after that
	merges      map[peer.ID]bool    // comparisons that are running
	lastArrival time.Time           // when a master last came, or came back
	soon        chan struct{}
}

// pulling is a transfer from one master; moved is when it began, or something came.
type pulling struct{ moved atomic.Pointer[time.Time] }

// stalled is how long nothing may come in a transfer until another master is asked too.
const stalled = 3 * time.Second

func joinCluster(ctx context.Context, s *Store) (_ *cluster, err error) {
	c := &cluster{
		store: s, serves: make(chan struct{}, maxPulls),
		pulls: map[peer.ID]*pulling{}, follows: map[peer.ID]*latest{}, later: map[peer.ID]bool{}, merges: map[peer.ID]bool{},
		plane: newPlane(), soon: make(chan struct{}, 1),
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close(closer{began: time.Now(), busy: s.diskBusy}))
		}
	}()
	var known []p2p.Contact
	for _, m := range s.members.Members(time.Now()) {
		known = append(known, p2p.Contact{ID: m.ID, Addrs: m.MeshAddrs})
	}
	var peers []p2p.Address
	for _, text := range s.cfg.Peers {
		a, err := p2p.ParseAddress(text)
		if err != nil {
			return nil, &FieldError{Field: "Peers", Problem: err.Error()}
		}
		peers = append(peers, a)
	}
	listen, err := parseAddrs(ctx, "Listen", s.cfg.Listen)
	if err != nil {
		return nil, err
	}
	advertise, err := parseAddrs(ctx, "Advertise", s.cfg.Advertise)
	if err != nil {
		return nil, err
	}
	newHost := s.cfg.seams.NewHost
	if newHost == nil {
		newHost = func(key crypto.PrivKey, listen []ma.Multiaddr) (host.Host, error) {
			return p2p.NewHost(key, listen)
		}
	}
	h, err := newHost(s.id.Libp2pKey(), listen)
	if err != nil {
		return nil, fmt.Errorf("mesh address: %w", err)
	}
	if c.mesh, err = p2p.New(p2p.Config{
		Host: h, Peers: peers, Secret: s.cfg.Secret, Advertise: advertise,
		PinsFile: filepath.Join(s.cfg.Dir, "pins.json"), Known: known, Logger: s.log,
		Joined: c.joined, Left: func(peer.ID) {},
		Run: s.run, Runs: s.collisions, Lasting: gossip.Carries, Held: func(id peer.ID) bool { return c.gossip.Holds(id) },
	}); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	s.collisions.drop, s.collisions.peers = c.mesh.Drop, c.mesh.Peers
	c.mesh.Host().SetStreamHandler(dagsync.PullProtocol, c.serve)
	c.mesh.Host().SetStreamHandler(antientropy.Protocol, c.compared)
	c.mesh.Host().SetStreamHandler(byeProtocol, c.bye)
	if c.gossip, err = gossip.Join(gossip.Options{
		Host: c.mesh.Host(), Known: c.mesh.Knows, Logger: s.log,
		Announce: c.announced, Pulse: c.pulsed, Arrived: c.arrived, Hop: c.hop,
	}); err != nil {
		return nil, err
	}
	return c, nil
}

// start begins to meet and to speak to the others. From here on the store is
// asked for its cluster, so it must know it by then.
func (c *cluster) start(ctx context.Context) {
	c.mesh.Start(ctx)
	c.spawn(func() { c.store.members.Keep(c.ctx) })
	c.spawn(c.pulse)
}

func parseAddrs(ctx context.Context, field string, texts []string) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for _, text := range texts {
		addrs, err := p2p.ParseListen(ctx, text)
		if err != nil {
			return nil, &FieldError{Field: field, Problem: err.Error()}
		}
		out = append(out, addrs...)
	}
	return out, nil
}

func (c *cluster) spawn(f func()) {
	c.work.Add(1)
	go func() {
		defer c.work.Done()
		f()
	}()
}

// leave tells the others that this master goes on purpose, bounded in time.
func (c *cluster) leave() {
	c.leaving.Store(true)
	ctx, cancel := context.WithTimeout(c.ctx, time.Second)
	defer cancel()
	var all sync.WaitGroup
	for _, id := range c.mesh.Peers() {
		all.Go(func() {
			s, err := c.mesh.Host().NewStream(ctx, id, byeProtocol)
			if err != nil {
				return
			}
			defer s.Close()
			_ = s.SetDeadline(time.Now().Add(time.Second))
			if s.CloseWrite() == nil {
				_, _ = io.Copy(io.Discard, s) // until the other side has taken note
			}
		})
	}
	all.Wait()
}

func (c *cluster) bye(s network.Stream) {
	defer s.Close()
	c.left(s.Conn().RemotePeer().String(), c.mesh.Run(s.Conn()))
}

// left notes that a run of another master has ended on purpose.
func (c *cluster) left(id, run string) {
	if !c.store.collisions.table.Left(id, run) {
		return // another run of it lives
	}
	c.store.members.Left(time.Now(), id)
	c.store.replica.Left(id)
	c.store.masterChanged(id)
}

func (c *cluster) close(by closer) (err error) {
	c.cancel()
	if c.gossip != nil {
		err = errors.Join(err, by.step("take what others have announced", c.gossip.Close))
	}
	if c.mesh != nil {
		err = errors.Join(err, by.step("leave the mesh", c.mesh.Close))
	}
	err = errors.Join(err, by.step("end the transfers", func() error { c.work.Wait(); return nil }))
	return errors.Join(err, by.step("save the known masters", c.store.members.Save))
}

// joined is called when another master was admitted on both sides.
func (c *cluster) joined(id peer.ID) {
	now := time.Now()
	c.store.collisions.admitted()
	run, _ := c.mesh.MemberRun(id)
	c.store.collisions.table.Met(now, id.String(), run)
	c.plane.met(now, id)
	c.store.splits.Heard(now, id.String())
	c.store.replica.Met(id.String())
	for _, about := range []string{"announcement ", "pulse ", "fetch ", "send ", "compare ", "follow "} {
		c.store.states.Ended(about + id.String())
	}
	c.expectFullState()
	c.pull(id)
}

// direct reports whether streams to another master can be opened.
func (c *cluster) direct(id string) bool {
	p, err := peer.Decode(id)
	return err == nil && c.mesh.Admitted(p)
}

// sought says what has become of the configured masters.
func (c *cluster) sought() replica.Sought {
	switch missing, members := c.mesh.Missing(); {
	case missing && c.mesh.Replaced() != "":
		return replica.Replaced
	case missing:
		return replica.SomeMissing
	case members == 0:
		return replica.OnlySelf
	}
	return replica.AllMet
}

// expectFullState has everything told to a master that has come, or that is heard again after a
// silence, be it by way of another: it has missed pulses, and would take the
// nodes in them for silent.
func (c *cluster) expectFullState() {
	c.mu.Lock()
	c.lastArrival = time.Now()
	c.mu.Unlock()
	c.pulseSoon()
}

// pulseSoon has the next pulse sent without waiting for its time.
func (c *cluster) pulseSoon() {
	select {
	case c.soon <- struct{}{}:
	default:
	}
}

// announce sends new blocks to all.
func (c *cluster) announce(number uint64, blocks []dag.Block) {
	for _, msg := range dagsync.Announcements(number, blocks, gossip.MaxMessage/2) {
		msg = dagsync.Sequenced(msg, c.store.run, c.announcements.Add(1))
		if err := c.gossip.Announce(c.ctx, msg); err != nil && c.ctx.Err() == nil {
			// The others see the new heads in the next pulse and fetch them.
			c.store.states.State(slog.LevelWarn, "announce", "fails", "cannot announce new records", "err", err)
		}
	}
}

// announced takes new blocks from another master.
func (c *cluster) announced(from peer.ID, data []byte) {
	step, err := c.store.replica.Announced(c.ctx, from.String(), data)
	switch {
	case step == replica.Pull:
		c.pull(from)
	case errors.Is(err, dag.ErrBlock), errors.Is(err, dagsync.ErrMessage):
		c.store.states.State(slog.LevelWarn, "announcement "+from.String(), "bad", "bad announcement", "from", from, "err", err)
	case errors.Is(err, epoch.ErrEpoch), errors.Is(err, epoch.ErrClosed):
	case err != nil && c.ctx.Err() == nil:
		c.store.states.State(slog.LevelError, "announcement "+from.String(), "refused", "cannot take records of another master", "from", from, "err", err)
	}
}

// pull fetches what another master has and this one has not, in the background;
// one transfer at a time for each.
func (c *cluster) pull(from peer.ID) {
	if !c.mesh.Admitted(from) {
		// It is heard through others, who have what it has.
		for _, id := range c.mesh.Peers() {
			c.pull(id)
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin(from)
}

// begin begins a transfer, or puts it off while one is under way: masters mostly have
// the same, and what comes from two comes twice. It is called with mu held.
func (c *cluster) begin(from peer.ID) {
	if c.ctx.Err() != nil {
		return
	}
	if c.pulls[from] != nil || c.fetching() {
		c.later[from] = true
		return
	}
	p := &pulling{}
	p.moves()
	c.pulls[from] = p
	c.spawn(func() {
		step := c.pullOnce(from, p)
		if step == replica.Compare {
			defer c.merge(from)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.pulls, from)
		next := c.later
		c.later = map[peer.ID]bool{}
		for id := range next {
			c.begin(id)
		}
	})
}

// fetching reports whether blocks come in. It is called with mu held.
func (c *cluster) fetching() bool {
	for _, p := range c.pulls {
		if time.Since(*p.moved.Load()) < stalled {
			return true
		}
	}
	return false
}

func (p *pulling) moves() {
	now := time.Now()
	p.moved.Store(&now)
}

func (c *cluster) pullOnce(from peer.ID, p *pulling) replica.Step {
	began, number := time.Now(), c.store.history.Number()
	s, err := c.mesh.Host().NewStream(c.ctx, from, dagsync.PullProtocol)
	if err != nil {
		c.store.log.Debug("cannot fetch records", "from", from, "err", err)
		return c.store.replica.Pulled(from.String(), 0, err)
	}
	n, err := dagsync.Pull(c.ctx, s, c.store.history, func(blocks []dag.Block) error {
		defer p.moves()
		return c.store.history.Deliver(c.ctx, number, blocks)
	})
	switch {
	case err != nil && c.ctx.Err() == nil:
		// The next pulse shows that something is still missing.
		c.store.states.State(slog.LevelInfo, "fetch "+from.String(), "broke off", "fetching records broke off", "from", from, "blocks", n, "err", err)
	case n > 0:
		c.store.log.Debug("fetched records", "from", from, "blocks", n, "took", time.Since(began))
	}
	if err == nil {
		c.store.states.Ended("fetch " + from.String())
	}
	return c.store.replica.Pulled(from.String(), n, err)
}

func (c *cluster) serve(s network.Stream) {
	select {
	case c.serves <- struct{}{}:
		defer func() { <-c.serves }()
	default:
		_ = s.Reset() // busy; the puller comes again with the next pulse
		return
	}
	if _, err := dagsync.Serve(c.ctx, s, c.store.history); err != nil && c.ctx.Err() == nil {
		to := s.Conn().RemotePeer()
		c.store.states.State(slog.LevelInfo, "send "+to.String(), "broke off", "sending records broke off", "to", to, "err", err)
	}
}

// pulse tells the others about once a second who this master is, what it holds
// and whom it has heard.
func (c *cluster) pulse() {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	var published, watched time.Time // when everything was last told, and the others were looked at
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		case <-c.soon:
		}
		if c.leaving.Load() {
			return // a pulse behind our farewell would call us back
		}
		now := time.Now()
		c.mu.Lock()
		everything := now.Sub(c.lastArrival) < fullStateWindow && now.Sub(published) >= pulseEvery*9/10
		c.mu.Unlock()
		pulses := c.store.board.Collect(now)
		if everything {
			published = now
			pulses = c.store.board.Everything(now, 2*c.store.cfg.OfflineAfter)
		}
		for _, msg := range liveness.Encode(c.info(), pulses) {
			if err := c.gossip.Pulse(c.ctx, msg); err != nil && c.ctx.Err() == nil {
				c.store.states.State(slog.LevelWarn, "pulse", "fails", "cannot send a pulse", "err", err)
			}
		}
		if now.Sub(watched) >= pulseEvery/2 {
			watched = now
			c.watch(now)
		}
		select { // however often soon is asked for
		case <-c.ctx.Done():
			return
		case <-time.After(pulseGap):
		}
	}
}

func (c *cluster) info() *liveness.MasterInfo {
	s := c.store
	digest, nodes := s.table.Digest()
	m := &liveness.MasterInfo{
		Name: s.cfg.Name, Version: s.cfg.Version, RPCURLs: s.cfg.Endpoints.RPCURLs, UIURLs: s.cfg.Endpoints.UIURLs,
		MeshAddrs: c.mesh.Addrs(), Wall: s.cfg.wall(), Nodes: nodes, Digest: digest[:],
		Epoch: s.history.Number(), Cutoff: s.history.Cutoff(), EdgeAddrs: s.cfg.Endpoints.EdgeAddrs, Settings: s.settings,
	}
	_, m.Joining = s.replica.Joining()
	c.mu.Lock()
	m.Fetching = c.fetching()
	c.mu.Unlock()
	now := time.Now()
	m.Run, m.Seq = s.run, s.collisions.table.Next()
	m.Announced = c.announcements.Load()
	m.Echoes = s.collisions.echoes(now)
	for i, e := range m.Echoes {
		if id, err := peer.Decode(e.Master); err == nil {
			m.Echoes[i].Direct = c.plane.direct(now, id)
		}
	}
	m.Ended = s.endingToPublish(now)
	for _, k := range c.found {
		m.Collisions = append(m.Collisions, liveness.Collision{Master: k.Master, Kept: k.Kept, Refused: k.Refused})
	}
	for _, h := range s.history.Heads() {
		m.Heads = append(m.Heads, h.Bytes())
	}
	alive := s.members.Alive(now)
	m.Connectivity = &liveness.Connectivity{Masters: alive[:min(len(alive), membership.MaxObserved)], Nodes: s.members.CountDirect(now)}
	if m.Joining {
		holds := s.replica.Holds()
		m.Connectivity.Holds = holds[:min(len(holds), membership.MaxObserved)]
	}
	for _, k := range c.mesh.Contacts() {
		if !s.members.Has(k.ID) {
			continue // never heard here, or not for longer than retention
		}
		m.Contacts = append(m.Contacts, liveness.Contact{ID: k.ID, Addrs: k.Addrs})
	}
	return m
}
