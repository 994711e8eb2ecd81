// Package crdtstoretest runs several masters in one process, over real libp2p on
// the loopback interface, and cuts and mends the network between them. It is for
// the tests of this module and of programs that embed a store.
package crdtstoretest
