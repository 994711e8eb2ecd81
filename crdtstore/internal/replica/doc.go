// Package replica is the protocol of a master without its surroundings: what it
// does with a write, with blocks and states and summaries of other masters, and by
// the passing of time, so that all masters come to hold the same and none loses
// what it has acknowledged. Network, disk and clocks are handed in. The store runs
// it on libp2p and go-ds-crdt; the simulator runs the same code on models of both.
package replica
