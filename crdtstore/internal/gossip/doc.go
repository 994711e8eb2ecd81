// Package gossip carries the two kinds of messages that all masters hear: new
// blocks of the history, and pulses. Both travel over libp2p pubsub, signed by
// their author; what is not from a master that the mesh knows is dropped.
package gossip
