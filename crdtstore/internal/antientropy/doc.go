// Package antientropy makes two tables of node states equal by comparing them,
// whatever became of the history that should have done it: bucket digests first,
// then the digests of the nodes in the buckets that differ, then the states of the
// nodes that differ. The same walk without the last step tells how two masters
// differ.
package antientropy
