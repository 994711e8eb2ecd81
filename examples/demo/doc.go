// Command demo runs a whole grid on this machine: three masters, twenty nodes
// with an agent and a compute service each, and VMs on them. A master that is
// killed is started again after a while.
//
//	make demo
//
// Everything listens on loopback and keeps its files in a temporary directory,
// which is removed at the end.
package main
