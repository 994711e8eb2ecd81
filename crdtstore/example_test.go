package crdtstore_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// A single master in a directory of its own.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	ctx := context.Background()
	store, err := crdtstore.Open(ctx, crdtstore.Config{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	// A node tells of itself; boot and seq are its own version numbers.
	_, err = store.Report(ctx, crdtstore.Report{
		NodeID: "node-1", Boot: 1, Seq: 1,
		Profile: crdtstore.Profile{Hostname: "alpha", Total: crdtstore.Capacity{CRU: 8, MRU: 32 << 30}},
		VMs:     []crdtstore.VM{{SID: "vm-1", Name: "web", State: "running"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	// And later, every few seconds, that it lives.
	store.Beat(crdtstore.Beat{NodeID: "node-1", Boot: 1, Seq: 2})

	page, err := store.Nodes(crdtstore.NodeQuery{Status: crdtstore.Online})
	if err != nil {
		log.Fatal(err)
	}
	for _, n := range page.Nodes {
		fmt.Printf("%s (%s): %v cores, %d VM\n", n.NodeID, n.Hostname, n.Total.CRU, len(n.VMs))
	}
	// Output: node-1 (alpha): 8 cores, 1 VM
}

// Following changes: take the cursor, read a snapshot, watch from the cursor.
func ExampleStore_Watch() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	ctx := context.Background()
	store, err := crdtstore.Open(ctx, crdtstore.Config{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	cursor := store.Cursor()
	if _, err := store.Report(ctx, crdtstore.Report{NodeID: "node-1", Boot: 1, Seq: 1}); err != nil {
		log.Fatal(err)
	}
	for event, err := range store.Watch(ctx, cursor) {
		if err != nil {
			log.Fatal(err) // crdtstore.ErrCursor: read a fresh snapshot
		}
		fmt.Println(event.Kind, event.Node.NodeID, event.Node.Status)
		break
	}
	// Output: node node-1 online
}

// Two masters that find each other, here in one process; as programs they would
// be on two machines, each with the other's address in Peers.
func ExampleConfig_peers() {
	ctx := context.Background()
	open := func(name, listen string, peers ...string) *crdtstore.Store {
		dir, err := os.MkdirTemp("", "example")
		if err != nil {
			log.Fatal(err)
		}
		store, err := crdtstore.Open(ctx, crdtstore.Config{
			Dir: dir, Name: name, Listen: []string{listen}, Peers: peers, Secret: "shared by both",
		})
		if err != nil {
			log.Fatal(err)
		}
		return store
	}
	a := open("a", "127.0.0.1:0")
	defer a.Close()
	b := open("b", "127.0.0.1:0", a.Masters()[0].MeshAddrs[0])
	defer b.Close()

	cursor := b.Cursor()
	if _, err := a.Report(ctx, crdtstore.Report{NodeID: "node-1", Boot: 1, Seq: 1}); err != nil {
		log.Fatal(err)
	}
	for event, err := range b.Watch(ctx, cursor) {
		if err != nil {
			log.Fatal(err)
		}
		if event.Kind == crdtstore.NodeEvent {
			fmt.Println(b.Name(), "has", event.Node.NodeID)
			break
		}
	}
	// Output: b has node-1
}
