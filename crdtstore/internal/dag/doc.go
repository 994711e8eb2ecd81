// Package dag knows the blocks of a Merkle-CRDT history: dag-pb nodes, each
// with a go-ds-crdt delta inside and links to the blocks it was built on.
package dag
