// Package crdtstore keeps the node records of a compute grid on any number of
// masters, without a leader, a quorum or an external database. Every master
// takes writes at any time, also when it is cut off from all others; when
// masters meet again, their records merge.
//
// # Use
//
// [Open] a [Store] in a directory. The zero [Config] is a working single master;
// with Peers or a Secret the store listens for other masters and replicates.
// Feed it what nodes say: a [Report] is a node's account of itself, a [Beat] says
// that the node lives. Read with [Store.Node], [Store.Nodes] and [Store.VMs],
// follow changes with [Store.Watch], and let operators speak with [Store.Drain],
// [Store.Label] and [Store.Remove].
//
// # Two planes
//
// Records (who a node is, its VMs, the operator's word) are written to disk and
// replicated as a Merkle-CRDT, when they change. Pulses (that a node lives, and
// how much of it is in use) stay in memory and are told to the other masters
// about once a second. So heartbeats never grow the history.
//
// # Guarantees
//
//   - What Report, Drain, Label or Remove acknowledged is on this master's disk
//     (see Config.NoSync), and reaches every master that can be reached.
//   - Masters that have heard of the same changes hold equal records, whatever
//     the order in which they heard; their digests in [Master] are then equal.
//   - The newest account of a node by (boot, seq), which only the node's agent
//     advances, is the one that stands. No clock takes part in that.
//   - A removed node stays removed until it boots again.
//   - Reads come from memory and do not wait for writes or for other masters.
//
// # Caveats
//
// Masters are eventually consistent: a read may miss what another master has
// acknowledged a moment ago. The status of a node is computed when it is read,
// from what the masters heard of it; two masters may disagree for a second or
// two. Without a cluster secret, masters are admitted by the IP address they come
// from, and by the peer id that was first met there.
//
// The merge rules are in package record, which has no dependency on the rest.
// Nothing in this package logs, exits or reads the environment on its own.
package crdtstore
