package explorer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// store is what the server needs of a [crdtstore.Store] and its streams, and what its
// tests put in their place. Threading, blocking and errors are as documented there.
type store interface {
	ID() string
	Name() string
	Health() error
	OfflineAfter() time.Duration
	SetSecret(secret string) error
	Close() error

	Report(ctx context.Context, r crdtstore.Report) (crdtstore.Receipt, error)
	Beat(b crdtstore.Beat) (crdtstore.BeatResult, error)

	Node(id string) (crdtstore.Node, error)
	Nodes(q crdtstore.NodeQuery) (crdtstore.NodePage, error)
	Drain(ctx context.Context, id string, drained bool, by string) (crdtstore.Node, error)
	Label(ctx context.Context, id string, labels map[string]*string, by string) (crdtstore.Node, error)
	Remove(ctx context.Context, id, by, reason string) (crdtstore.Node, error)

	VM(nodeID, sid string) (crdtstore.VM, error)
	VMs(q crdtstore.VMQuery) (crdtstore.VMPage, error)
	Acknowledged(vm crdtstore.VM)

	EndPreservation(ctx context.Context, by string) int
	Masters() []crdtstore.Master
	Stats() crdtstore.Stats
	Diff(ctx context.Context, master string) (crdtstore.Diff, error)

	Backup(ctx context.Context, w io.Writer) (crdtstore.BackupInfo, error)
	Restore(ctx context.Context, r io.Reader) (crdtstore.BackupInfo, error)

	Dial(ctx context.Context, master, name string) (net.Conn, error)
	Serve(name string, handle func(from string, conn net.Conn))
	SetTunnel(nodeID string, open bool)

	Cursor() string
	Watch(ctx context.Context, after string, kinds ...crdtstore.ChangeKind) iter.Seq2[crdtstore.Change, error]
	Events(q crdtstore.EventQuery) (crdtstore.EventPage, error)
	EventCounts() []crdtstore.EventCount
}

// embedded is a store with its streams.
type embedded struct {
	*crdtstore.Store
	crdtstore.Streams
}

func openStore(ctx context.Context, cfg crdtstore.Config) (store, error) {
	st, err := crdtstore.Open(ctx, cfg)
	if err != nil {
		return nil, err // not a nil *Store in a store
	}
	return embedded{st, st.Streams()}, nil
}

// openGrace is how long a start that is given up waits for the disk.
const openGrace = 5 * time.Second

// openWithin opens the store. Where ctx has ended and the disk hangs it does not wait for
// that; the store is closed when it is open at last.
func (s *Server) openWithin(ctx context.Context) (store, error) {
	if s.cfg.Store != nil {
		return embedded{s.cfg.Store, s.cfg.Store.Streams()}, nil
	}
	opened := make(chan store, 1)
	err := within(ctx, openGrace, func() error {
		defer close(opened)
		st, err := s.open(ctx, s.storeConfig())
		if err == nil {
			opened <- st
		}
		return err
	})
	if err == nil {
		return <-opened, nil
	}
	go func() {
		if st, ok := <-opened; ok {
			_ = st.Close() // the caller was told long ago
		}
	}()
	return nil, err
}

// storeFields are the flags behind fields of a store's configuration that only
// the store can check.
var storeFields = map[string]string{
	"Peers": "peer-masters", "Listen": "mesh-addr", "Advertise": "advertise",
	"OfflineAfter": "offline-after", "Retention": "retention",
}

// openError names the flag where the store complains about one of its fields.
func (s *Server) openError(err error) error {
	var field *crdtstore.FieldError
	if errors.As(err, &field) && storeFields[field.Field] != "" {
		return configErrorf(storeFields[field.Field], "%s", field.Problem)
	}
	return fmt.Errorf("open the store in %s: %w", s.cfg.DataDir, err)
}

func (s *Server) storeConfig() crdtstore.Config {
	a, _ := parseAdvertise(s.cfg.Advertise) // checked by resolve
	c := crdtstore.Config{
		Dir: s.cfg.DataDir, Name: s.cfg.Name, Version: s.cfg.Version,
		Peers: s.cfg.PeerMasters, Advertise: a.mesh, Secret: s.cfg.ClusterSecret,
		Endpoints: crdtstore.Endpoints{
			RPCURLs:   s.rpcURLs,
			UIURLs:    urlsFor(s.cfg.Advertise, s.uiAddr, func(a advertised) []string { return a.ui }),
			EdgeAddrs: s.edgeAddrs(),
		},
		OfflineAfter: s.cfg.OfflineAfter, Retention: s.cfg.Retention,
		RequireSigned: s.cfg.RequireSigned, Settings: s.cfg.sharedSettings(), Logger: s.log,
	}
	if s.cfg.MeshAddr != "" {
		c.Listen = []string{s.cfg.MeshAddr}
	}
	return c
}

// sharedSettings are the settings that should be the same on all masters, beside those
// that the store compares by itself. Lists are told by their number and a digest.
func (c *Config) sharedSettings() map[string]string {
	var aliases []string
	for _, name := range slices.Sorted(maps.Keys(c.Aliases)) {
		aliases = append(aliases, bareName(name)+"="+bareName(c.Aliases[name]))
	}
	proxied := slices.Sorted(slices.Values(c.ProxyMethods))
	return map[string]string{
		"heartbeat-interval": c.HeartbeatInterval.String(),
		"aliases":            summary(aliases),
		"proxy-methods":      summary(slices.Compact(proxied)),
	}
}

// summary tells lists apart in few bytes.
func summary(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	digest := sha256.Sum256([]byte(strings.Join(list, "\n")))
	return fmt.Sprintf("%d (digest %x)", len(list), digest[:4])
}
