// Package crdtstore keeps the node records of a compute grid on any number of
// masters, without a leader, a quorum or an external database. Every master takes
// writes at any time, also when it is cut off from all others; when masters meet
// again, their records merge. A program that opens a [Store] is a master.
//
// # A first program
//
// The zero [Config] is a single master that keeps everything below a directory and
// opens no socket:
//
//	store, err := crdtstore.Open(ctx, crdtstore.Config{Dir: "/var/lib/grid"})
//	if err != nil {
//		return err
//	}
//	defer store.Close()
//
//	// What a node says of itself, and later, every few seconds, that it lives.
//	_, err = store.Report(ctx, crdtstore.Report{NodeID: "node-1", Boot: 1, Seq: 1})
//	_, err = store.Beat(crdtstore.Beat{NodeID: "node-1", Boot: 1, Seq: 2})
//
//	page, err := store.Nodes(crdtstore.NodeQuery{Status: crdtstore.Online})
//
// Operators speak with [Store.Drain], [Store.Label] and [Store.Remove].
//
// # Several masters
//
// With Peers or a Secret in its Config a store listens for other masters and keeps up
// with them. One address is enough to find all, for masters learn of each other:
//
//	crdtstore.Config{Dir: dir, Secret: secret, Peers: []string{"10.0.0.1", "10.0.0.2"}}
//
// Open does not wait for them. A record is usually on the other masters about a
// millisecond after it was acknowledged here, and after a split as soon as they meet
// again. Masters that have heard of the same changes hold equal records, in whatever
// order they heard of them; their digests in [Master] are then equal. [Store.Diff] says
// what differs. Without a secret, a master is admitted when it comes from an IP address that
// Peers name, with the peer id that was first met there, or when an admitted master
// introduces it. So that has to be a network of one's own.
//
// Of two accounts of a node the newer one by (boot, seq) stands, which only the node
// advances; of two overrides by operators of the same thing the later one. No clock of a
// reader takes part in that. A removed node stays removed until it boots again. The
// merge rules are in package record, which has no dependency on the rest.
//
// # What waits for what
//
// Report, Drain, Label and Remove return when what they say is on this master's disk.
// They do not wait for other masters. Calls that come while the disk is at work share
// its next fsync, so many callers are served at about the price of one; each holds one
// record in memory, and there is no queue behind them that could overflow. That is the
// backpressure: a slow disk slows its writers down, and blocks of other masters take
// turns with them. To write faster, write from more goroutines. A call whose context
// ends returns at once, and what it has said may still be written.
//
// Reads come from memory. They wait neither for writes nor for other masters, so they
// have no context. Beat touches memory only too. Stats, Nodes and VMs look at every node,
// for pages say how many match; all else takes as long as what it returns.
//
// # Watching
//
// [Store.Watch] yields a [Change] for every change, with a cursor to resume from. Take a
// cursor, read a snapshot, and watch from that cursor:
//
//	cursor := store.Cursor()
//	page, err := store.Nodes(crdtstore.NodeQuery{})
//	for change, err := range store.Watch(ctx, cursor) {
//		if errors.Is(err, crdtstore.ErrCursor) {
//			// Too far behind, or another run: begin again with a snapshot.
//		}
//	}
//
// A cursor is good for the store and the run that gave it. Watchers do not hold up
// writers or each other: one that falls behind by more than 16,384 changes gets
// ErrCursor.
//
// [Store.Events] lists what happened: nodes that came and fell silent, VMs, masters,
// and what operators set through whichever master. [Store.Watch] yields it too.
//
// # Two planes, and what survives
//
// Records (who a node is, its VMs, the operators' overrides) are written to disk and
// replicated as a Merkle-CRDT, when they change. What was acknowledged survives the end
// of the process and of the power at any moment; with Config.NoSync, only what was
// acknowledged more than a moment ago, or what another master has. Pulses (that a node
// lives, and how much of it is in use) stay in memory and are told to the other masters
// about once a second, so heartbeats never grow the history. After all masters were
// down, nodes are suspect until they are heard again, and offline if they are not. When
// they were last seen goes to disk now and then, see Config.Checkpoint.
//
// The history on disk is cut from time to time, so it stays in proportion to the number
// of records. A node that is silent for Config.Retention expires: it is removed, and
// forgotten after ten times as long.
//
// # Health
//
// [Store.Health] says whether this master should be asked, or another one rather:
//
//   - [ErrCollision]: another process has the identity of this master, as after a copy of
//     its directory was started, and that one counts. Writes are refused.
//   - [ErrUnavailable]: the disk is full or fails. Writes are refused; all else goes on.
//     It passes by itself.
//   - [ErrJoining]: the store is new, or its files were damaged, and it does not have
//     all records of the others yet. It can do everything meanwhile; what it does not
//     have yet it does not show. Stats.Joining says how far it is.
//   - [ErrClosed]: the store was closed.
//
// [ErrDamaged] is an error of Open: files do not hold what was written to them. A master
// that has met others sets them aside instead, and gets the records from these. Files
// that a newer version of this package has written are an error too, and stay as they
// are.
//
// # Caveats
//
// Masters are eventually consistent: a read may miss what another master has
// acknowledged a moment ago. The status of a node is computed when it is read, from what
// the masters heard of it; two masters may disagree for a second or two. This is a
// registry and not a lock service.
//
// A nil context stands for one that never ends, wherever a context is taken.
//
// Nothing in this package logs, exits or reads the environment on its own. For tests
// with several masters see package crdtstoretest. How it is made, and where to begin to
// read, is in docs/architecture.md.
package crdtstore
