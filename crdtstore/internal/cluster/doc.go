// Package cluster is one master's part among several: it meets the others, sends them what
// is written here, takes what is written there, and tells and hears pulses once a second.
//
// What is to be done about what the others say is decided elsewhere, by package replica
// for records and package membership for masters; here are the network and the goroutines. Of
// its store it asks little, see [Store].
package cluster
