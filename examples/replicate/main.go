package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var cfg crdtstore.Config
	flag.StringVar(&cfg.Dir, "dir", "replicate", "`directory` for the records; its name is the master's")
	flag.StringVar(&cfg.Secret, "secret", "example", "what admits masters to each other")
	listen := flag.String("listen", "127.0.0.1:9104", "`address` for other masters")
	peer := flag.String("peer", "", "`address` of any other master")
	flag.Parse()
	cfg.Name, cfg.Listen = filepath.Base(cfg.Dir), []string{*listen}
	if *peer != "" {
		cfg.Peers = []string{*peer}
	}
	if err := run(ctx, cfg, os.Stdout); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "replicate:", err)
		os.Exit(1)
	}
}

// run is a master that reports one node and prints what changes, until ctx ends or
// something fails.
func run(ctx context.Context, cfg crdtstore.Config, out io.Writer) (err error) {
	store, err := crdtstore.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	fmt.Fprintln(out, "listening on", store.Masters()[0].MeshAddrs[0])

	cursor := store.Cursor()
	known, err := store.Nodes(crdtstore.NodeQuery{Limit: 1000})
	if err != nil {
		return err
	}
	for _, n := range known.Nodes {
		show(out, n)
	}
	boot := uint64(time.Now().UnixMilli())
	if _, err := store.Report(ctx, crdtstore.Report{NodeID: "node-" + cfg.Name, Boot: boot, Seq: 1}); err != nil {
		return err
	}
	go beat(ctx, store, "node-"+cfg.Name, boot)

	for change, err := range store.Watch(ctx, cursor) {
		switch {
		case err != nil:
			return err
		case change.Kind == crdtstore.NodeChange:
			show(out, *change.Node)
		case change.Kind == crdtstore.MasterChange:
			fmt.Fprintln(out, "master", change.Master.Name, "is", change.Master.Status)
		}
	}
	return nil
}

func show(out io.Writer, n crdtstore.Node) { fmt.Fprintln(out, n.NodeID, "is", n.Status) }

// beat says that a node lives, until ctx ends.
func beat(ctx context.Context, store *crdtstore.Store, node string, boot uint64) {
	for seq := uint64(2); ; seq++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
			if _, err := store.Beat(crdtstore.Beat{NodeID: node, Boot: boot, Seq: seq}); err != nil {
				fmt.Fprintln(os.Stderr, "replicate:", err) // as when an operator has removed the node
			}
		}
	}
}
