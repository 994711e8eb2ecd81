// Package liveness is the pulse plane: when each master last heard each node,
// and what the node then said of its usage. It lives in memory only. All times
// are readings of this machine's monotonic clock; what other masters heard
// arrives as an age and is counted on from here.
package liveness
