package crdtstore_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// A program that embeds a single master. What it was told is there again when it
// starts anew.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := crdtstore.Open(ctx, crdtstore.Config{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	// A node tells of itself; boot and seq are its own version numbers.
	_, err = store.Report(ctx, crdtstore.Report{
		NodeID: "node-1", Boot: 1, Seq: 1,
		Profile: record.Profile{Hostname: "alpha", Total: record.Capacity{CRU: 8, MRU: 32 << 30}},
		VMs:     []crdtstore.VM{{SID: "vm-1", Name: "web", State: "running"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Close(); err != nil {
		log.Fatal(err)
	}

	store, err = crdtstore.Open(ctx, crdtstore.Config{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	// The node has gone on meanwhile, and says every few seconds that it lives.
	if _, err := store.Beat(crdtstore.Beat{NodeID: "node-1", Boot: 1, Seq: 2}); err != nil {
		log.Fatal(err)
	}

	page, err := store.Nodes(crdtstore.NodeQuery{Status: crdtstore.Online})
	if err != nil {
		log.Fatal(err)
	}
	for _, n := range page.Nodes {
		fmt.Printf("%s (%s) is %s: %v cores, %d VM\n", n.NodeID, n.Hostname, n.Status, n.Total.CRU, len(n.VMs))
	}
	// Output: node-1 (alpha) is online: 8 cores, 1 VM
}

// Following changes: take a cursor, read a snapshot, watch from the cursor. The cursor
// of an event is where to go on after an interruption.
func ExampleStore_Watch() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := crdtstore.Open(ctx, crdtstore.Config{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	cursor := store.Cursor()
	page, err := store.Nodes(crdtstore.NodeQuery{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("at first there are", page.Total)

	for _, id := range []string{"node-1", "node-2"} {
		if _, err := store.Report(ctx, crdtstore.Report{NodeID: id, Boot: 1, Seq: 1}); err != nil {
			log.Fatal(err)
		}
	}
	next := func() {
		for change, err := range store.Watch(ctx, cursor, crdtstore.NodeChange) {
			if err != nil {
				log.Fatal(err) // crdtstore.ErrCursor: begin again with a snapshot
			}
			fmt.Println(change.Kind, change.Node.NodeID, change.Node.Status)
			cursor = change.Cursor
			break
		}
	}
	next()
	next() // goes on where the first has stopped
	// Output:
	// at first there are 0
	// node node-1 online
	// node node-2 online
}

// Two masters that find each other, here in one process. As programs they would be on
// two machines, each with the other's address in Peers: see examples/replicate.
func Example_twoMasters() {
	ctx := context.Background()
	open := func(name string, peers ...string) (*crdtstore.Store, func()) {
		dir, err := os.MkdirTemp("", "example")
		if err != nil {
			log.Fatal(err)
		}
		store, err := crdtstore.Open(ctx, crdtstore.Config{
			Dir: dir, Name: name, Listen: []string{"127.0.0.1:0"}, Peers: peers, Secret: "shared by both",
		})
		if err != nil {
			log.Fatal(err)
		}
		return store, func() {
			_ = store.Close()
			_ = os.RemoveAll(dir)
		}
	}
	a, closeA := open("a")
	defer closeA()
	b, closeB := open("b", a.Masters()[0].MeshAddrs[0])
	defer closeB()

	cursor := b.Cursor()
	if _, err := a.Report(ctx, crdtstore.Report{NodeID: "node-1", Boot: 1, Seq: 1}); err != nil {
		log.Fatal(err)
	}
	for change, err := range b.Watch(ctx, cursor) {
		if err != nil {
			log.Fatal(err)
		}
		if change.Kind == crdtstore.NodeChange {
			fmt.Println(b.Name(), "has", change.Node.NodeID)
			break
		}
	}
	// Output: b has node-1
}
