package explorer

import (
	"context"
	"io"
	"iter"
	"net"
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
