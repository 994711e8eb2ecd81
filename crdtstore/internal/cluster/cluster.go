package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/antientropy"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dagsync"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/gossip"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/runs"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/statelog"
)

const byeProtocol protocol.ID = "/hero-explorer/bye/1"

// Store is the store whose part among several a cluster is. Its methods are called by the
// goroutines of the cluster, and must not wait for the network.
type Store interface {
	// MasterChanged is called when a master shows something else than before.
	MasterChanged(id string)
	// Happened is called with what happened to a master; typ is EventRebuilt, or one of the
	// Event constants of package runs.
	Happened(typ, master, text string)
	// Heard is called when a master was met, or has said something.
	Heard(now time.Time, master string)
	// Arrives is called with a state that another master holds, before it is joined.
	Arrives(now time.Time, node string, st record.State)
	// Exchanged is called when something was exchanged with another master.
	Exchanged()
	// Ending returns the ending of preservation that others are to know of; nil: none.
	Ending(now time.Time) *liveness.Ended
	// Ended takes the ending of which another master tells; nil: it tells of none. What it
	// returns, if anything, is left to do and may wait for the disk.
	Ended(now time.Time, from string, e *liveness.Ended) (save func())
	// Look is called about once a second.
	Look(now time.Time)
}

// Config is what a cluster is made of. The parts are those of its store, which outlives it.
type Config struct {
	Host      host.Host // the cluster closes it
	Peers     []p2p.Address
	Advertise []ma.Multiaddr
	Secret    string
	PinsFile  string // path

	Self, Name, Version        string // Self: the id
	Run                        string // names this run, see p2p.Config
	RPCURLs, UIURLs, EdgeAddrs []string
	Settings                   *liveness.Settings
	OfflineAfter               time.Duration
	Wall                       func() int64 // Unix milliseconds

	Table      *table.Table
	Board      *liveness.Board
	Replica    *replica.Replica
	History    *epoch.Log
	Members    *membership.Table
	Collisions *runs.Collisions
	Store      Store

	Logger *slog.Logger
	States *statelog.Log
}

// Cluster is this master's part among several: it sends what is written here, takes what
// is written elsewhere, and tells and hears pulses. Its methods may be called concurrently.
type Cluster struct {
	cfg    Config
	mesh   *p2p.Mesh
	gossip *gossip.Gossip
	ctx    context.Context // of the loops and transfers; ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup
	serves chan struct{} // a slot for each transfer to another master

	leaving atomic.Bool
	plane   *plane
	// announcements is how many this run has made.
	announcements atomic.Uint64

	mu          sync.Mutex // guards what follows
	pulls       map[peer.ID]*pulling
	follows     map[peer.ID]*latest // whose summaries are acted on, and what waits meanwhile
	later       map[peer.ID]bool    // from whom blocks are to be fetched after that
	merges      map[peer.ID]bool    // comparisons that are running
	lastArrival time.Time           // when a master last came, or came back
	soon        chan struct{}
}

var _ gossip.Handler = (*Cluster)(nil)

// New joins the mesh, without looking for others yet. ctx bounds all that the cluster does.
func New(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	c := &Cluster{
		cfg: cfg, serves: make(chan struct{}, maxPulls),
		pulls: map[peer.ID]*pulling{}, follows: map[peer.ID]*latest{}, later: map[peer.ID]bool{}, merges: map[peer.ID]bool{},
		plane: newPlane(), soon: make(chan struct{}, 1),
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	var known []p2p.Contact
	for _, m := range cfg.Members.Members(time.Now()) {
		known = append(known, p2p.Contact{ID: m.ID, Addrs: m.MeshAddrs})
	}
	if c.mesh, err = p2p.New(p2p.Config{
		Host: cfg.Host, Peers: cfg.Peers, Secret: cfg.Secret, Advertise: cfg.Advertise,
		PinsFile: cfg.PinsFile, Known: known, Logger: cfg.Logger,
		Joined: c.joined, Left: func(peer.ID) {},
		Run: cfg.Run, Runs: cfg.Collisions, Lasting: gossip.Carries, Held: func(id peer.ID) bool { return c.gossip.Holds(id) },
	}); err != nil {
		c.cancel()
		return nil, errors.Join(err, cfg.Host.Close())
	}
	cfg.Collisions.Use(c.mesh)
	c.mesh.Host().SetStreamHandler(dagsync.PullProtocol, c.serve)
	c.mesh.Host().SetStreamHandler(antientropy.Protocol, c.compared)
	c.mesh.Host().SetStreamHandler(byeProtocol, c.bye)
	if c.gossip, err = gossip.Join(gossip.Options{Host: c.mesh.Host(), Known: c.mesh.Knows, Logger: cfg.Logger, Handler: c}); err != nil {
		return nil, errors.Join(err, c.Close(func(_ string, part func() error) error { return part() }))
	}
	return c, nil
}

// Start begins to meet and to speak to the others. From here on Config.Store is called.
func (c *Cluster) Start(ctx context.Context) {
	c.mesh.Start(ctx)
	c.spawn(func() { c.cfg.Members.Keep(c.ctx) })
	c.spawn(c.pulse)
}

// Mesh returns the mesh, for what is not about records.
func (c *Cluster) Mesh() *p2p.Mesh { return c.mesh }

func (c *Cluster) spawn(f func()) {
	c.work.Add(1)
	go func() {
		defer c.work.Done()
		f()
	}()
}

// Leave tells the others that this master goes on purpose, bounded in time.
func (c *Cluster) Leave() {
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

func (c *Cluster) bye(s network.Stream) {
	defer s.Close()
	c.Left(s.Conn().RemotePeer().String(), c.mesh.Run(s.Conn()))
}

// Left notes that a run of another master has ended on purpose.
func (c *Cluster) Left(id, run string) {
	if !c.cfg.Collisions.Left(id, run) {
		return // another run of it lives
	}
	c.cfg.Members.Left(time.Now(), id)
	c.cfg.Replica.Left(id)
	c.cfg.Store.MasterChanged(id)
}

// Close ends what is under way, and leaves the mesh. step runs each part, and may return
// before that has ended.
func (c *Cluster) Close(step func(what string, part func() error) error) (err error) {
	c.cancel()
	if c.gossip != nil {
		err = errors.Join(err, step("take what others have announced", c.gossip.Close))
	}
	err = errors.Join(err, step("leave the mesh", c.mesh.Close))
	err = errors.Join(err, step("end the transfers", func() error { c.work.Wait(); return nil }))
	return errors.Join(err, step("save the known masters", c.cfg.Members.Save))
}

// joined is called when another master was admitted on both sides.
func (c *Cluster) joined(id peer.ID) {
	now := time.Now()
	run, _ := c.mesh.MemberRun(id)
	c.cfg.Collisions.Met(now, id.String(), run)
	c.plane.met(now, id)
	c.cfg.Store.Heard(now, id.String())
	c.cfg.Replica.Met(id.String())
	for _, about := range []string{"announcement ", "pulse ", "fetch ", "send ", "compare ", "follow "} {
		c.cfg.States.Ended(about + id.String())
	}
	c.expectFullState()
	c.pull(id)
}

// Direct reports whether streams to another master can be opened.
func (c *Cluster) Direct(id string) bool {
	p, err := peer.Decode(id)
	return err == nil && c.mesh.Admitted(p)
}

// Sought says what has become of the configured masters.
func (c *Cluster) Sought() replica.Sought {
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

// look looks at the other masters.
func (c *Cluster) look(now time.Time) {
	for _, k := range c.cfg.Collisions.Look(now) {
		c.collided(k)
	}
	c.rebuild(now)
	c.cfg.Store.Look(now)
}

// Straight reports whether what two masters say goes straight from this one to another and
// back, and since when it does not.
func (c *Cluster) Straight(now time.Time, id peer.ID) (is bool, since time.Time) {
	return c.plane.bothWays(now, id)
}

// Counts returns how often announcements were missing, and how many connections were made
// anew because nothing arrived over them.
func (c *Cluster) Counts() (gaps, rebuilt uint64) { return c.plane.counts() }

// Forget drops what is known of a master that is gone for good.
func (c *Cluster) Forget(id string) {
	if decoded, err := peer.Decode(id); err == nil {
		c.plane.forget(decoded)
		c.mesh.Forget(decoded)
	}
	c.cfg.Collisions.Forget(id)
}

// collided publishes a collision that has begun or ended.
func (c *Cluster) collided(k runs.Change) {
	name := c.cfg.Members.Name(k.Master)
	if k.Open {
		text := name + ": " + k.Text
		c.cfg.Logger.Error("two processes have one identity", "master", k.Master, "text", text)
		c.cfg.Store.Happened(runs.EventCollision, k.Master, text)
	} else {
		text := fmt.Sprintf("one process only has the identity of %s again", name)
		c.cfg.Logger.Info("one process only has an identity again", "master", k.Master, "text", text)
		c.cfg.Store.Happened(runs.EventCollisionEnd, k.Master, text)
	}
	c.cfg.Store.MasterChanged(k.Master)
}
