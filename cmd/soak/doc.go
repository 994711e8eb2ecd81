// Package soak runs a master for many simulated days, on a real disk: a store of
// the library with thousands of nodes that beat, change, fall silent, come and
// go. It fails when the disk takes more than a small multiple of what the records
// take, or memory grows. The test has the build tag soak; make soak runs it.
//
// Time is that of [testing/synctest]: it stands still while anything computes or
// waits for the disk, and jumps when everybody waits. So every heartbeat of every
// node is really given to the store, and every write really reaches the disk.
package soak
