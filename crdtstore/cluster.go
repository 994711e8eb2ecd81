package crdtstore

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	ma "github.com/multiformats/go-multiaddr"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/cluster"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/runs"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// What happens to masters, as the mesh sees it.
const (
	EventCollision    = runs.EventCollision    // two processes have its identity
	EventCollisionEnd = runs.EventCollisionEnd // only one does
	EventRebuilt      = cluster.EventRebuilt   // the connection to it is made anew, for nothing arrived over it
)

// indirectAfter is how long what two masters say must have taken another way than the
// straight one until it is told: it does so for a moment whenever they meet.
const indirectAfter = 10 * time.Second

// joinCluster makes this store one of several. ctx bounds what the cluster does.
func (s *Store) joinCluster(ctx context.Context) error {
	cfg := &s.cfg
	var peers []p2p.Address
	for _, text := range cfg.Peers {
		a, err := p2p.ParseAddress(text)
		if err != nil {
			return &FieldError{Field: "Peers", Problem: err.Error()}
		}
		peers = append(peers, a)
	}
	listen, err := parseAddrs(ctx, "Listen", cfg.Listen)
	if err != nil {
		return err
	}
	advertise, err := parseAddrs(ctx, "Advertise", cfg.Advertise)
	if err != nil {
		return err
	}
	newHost := cfg.seams.NewHost
	if newHost == nil {
		newHost = func(key crypto.PrivKey, listen []ma.Multiaddr) (host.Host, error) {
			return p2p.NewHost(key, listen)
		}
	}
	h, err := newHost(s.id.Libp2pKey(), listen)
	if err != nil {
		return fmt.Errorf("mesh address: %w", err)
	}
	s.cluster, err = cluster.New(ctx, cluster.Config{
		Host: h, Peers: peers, Advertise: advertise, Secret: cfg.Secret, PinsFile: filepath.Join(cfg.Dir, "pins.json"),
		Self: s.text, Name: cfg.Name, Version: cfg.Version, Run: s.run,
		RPCURLs: cfg.Endpoints.RPCURLs, UIURLs: cfg.Endpoints.UIURLs, EdgeAddrs: cfg.Endpoints.EdgeAddrs,
		Settings: s.settings, OfflineAfter: cfg.OfflineAfter, Wall: cfg.wall,
		Table: s.table, Board: s.board, Replica: s.replica, History: s.history, Members: s.members,
		Collisions: s.collisions, Store: clusterStore{s}, Logger: s.log, States: s.states,
	})
	return err
}

func parseAddrs(ctx context.Context, field string, texts []string) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for _, text := range texts {
		addrs, err := p2p.ParseListen(ctx, text)
		if err != nil {
			return nil, &FieldError{Field: field, Problem: err.Error()}
		}
		out = append(out, addrs...)
	}
	return out, nil
}

// clusterStore is a store as its cluster knows it.
type clusterStore struct{ s *Store }

func (c clusterStore) MasterChanged(id string) { c.s.masterChanged(id) }

func (c clusterStore) Happened(typ, master, text string) {
	c.s.logEvent(Event{Kind: MasterEvent, Type: typ, Master: master, Text: text})
}

func (c clusterStore) Heard(now time.Time, master string) { c.s.splits.Heard(now, master) }

func (c clusterStore) Arrives(now time.Time, node string, st record.State) {
	c.s.splits.Arrives(now, node, st)
}

func (c clusterStore) Exchanged() { c.s.endJoining() }

func (c clusterStore) Ending(now time.Time) *liveness.Ended { return c.s.preserver.Ending(now) }

func (c clusterStore) Ended(now time.Time, from string, e *liveness.Ended) (save func()) {
	return c.s.preserver.Learn(now, from, e)
}

func (c clusterStore) Look(now time.Time) { c.s.lookAtMasters(now) }

// yielded returns why a state of this master's own is not written: what a master writes
// that has yielded reaches nobody. What is known already is taken.
func (s *Store) yielded(st record.State) error {
	err := s.collisions.Yielded()
	if err == nil || st.IsZero() {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
