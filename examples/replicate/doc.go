// Command replicate is a master in a few lines: the smallest program on crdtstore that
// replicates. Start it twice, in two terminals:
//
//	go run ./examples/replicate -dir a -listen 127.0.0.1:9104
//	go run ./examples/replicate -dir b -listen 127.0.0.1:9105 -peer 127.0.0.1:9104
//
// Each reports a node that is named after its directory, and prints what it learns, so
// that both print both nodes. Stop one and start it again; give a third any of the
// addresses.
package main
