package crdtstore

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/seam"
)

// Config configures a store. The zero Config is a working single master in the
// directory "hero_explorer" below the working directory.
type Config struct {
	// Dir is where everything is kept; it is made where it is missing. Empty:
	// "hero_explorer". A relative one counts from the working directory at Open. One
	// Store may use it at a time, whatever the path by which it is named.
	Dir string

	// Name is what people call this master. Empty: the first 8 characters behind
	// the common prefix of its id.
	Name string

	// Version is the program's version, shown to the other masters.
	Version string

	// Peers are addresses of other masters: IP, host, host:port (port 9004 where
	// none is given) or multiaddr, with or without /p2p/ID. The own address may
	// be among them. A name stands for all its addresses and is resolved again
	// at every attempt. Masters learn of further ones from each other. Without
	// Peers, Secret and Listen the store is a single master and opens no socket.
	Peers []string

	// Listen is where other masters reach this one: host:port or multiaddrs.
	// No host, 0.0.0.0 and :: stand for all addresses, IPv4 and IPv6. Empty: 0.0.0.0:9004
	// where there are Peers or a Secret, else nothing.
	Listen []string

	// Advertise are the addresses to tell others, host, host:port or multiaddr.
	// Empty: the addresses of this machine's interfaces.
	Advertise []string

	// Secret admits masters: both sides prove that they know it. Without one,
	// only masters at an address named in Peers are admitted, and masters that
	// an admitted master introduces; the peer id is pinned on first contact.
	Secret string

	// Endpoints are where the program that embeds the store serves what is its own.
	Endpoints Endpoints

	// OfflineAfter is how long a node may be silent before it counts as
	// offline. 0: 30 s. It should be the same on all masters, and several times the
	// interval of the nodes' beats. Where masters differ, each judges what it hears
	// itself by its own, and the others take its verdict.
	OfflineAfter time.Duration

	// Checkpoint is how often the time a node was last seen goes to disk. 0: 5
	// minutes. Smaller values make the history grow faster.
	Checkpoint time.Duration

	// EpochBytes is how many bytes of records may be written to the history before
	// it is cut, which it is when so much was written to it as all records take 2.2
	// times. 0: 4 MiB. Smaller values save disk on small grids and cost writing the
	// records anew more often.
	EpochBytes int

	// EpochAge is when the history is cut even if it has grown less, as long as
	// there is something to be gained. 0: 24 hours.
	EpochAge time.Duration

	// Retention is how long a node may be silent before it expires, which is a
	// removal. Removals are remembered ten times as long. 0: 720 h. It should be the
	// same on all masters.
	Retention time.Duration

	// Settings are settings of the program that embeds the store which should be the same
	// on all masters, by name, as a text to compare and to show: at most 16, of at most 64
	// bytes each. Those of the store itself are compared without. See
	// Master.SettingsDiffer.
	Settings map[string]string

	// RequireSigned refuses reports that are not signed by the node's key.
	RequireSigned bool

	// NoSync acknowledges writes before they are on stable storage. A crash of
	// the process or of the machine may then lose what was acknowledged in the
	// last moments, unless another master has it.
	NoSync bool

	seams seam.Seams // for tests

	// Logger takes the store's log. nil: nothing is logged.
	Logger *slog.Logger
}

func init() { seam.Of = func(cfg any) *seam.Seams { return &cfg.(*Config).seams } }

// complete fills in the defaults and checks the rest.
func (c *Config) complete() error {
	if c.Dir == "" {
		c.Dir = "hero_explorer"
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return &FieldError{Field: "Dir", Problem: err.Error()}
	}
	for _, d := range []struct {
		field string
		value *time.Duration
		zero  time.Duration
	}{
		{"OfflineAfter", &c.OfflineAfter, 30 * time.Second},
		{"Checkpoint", &c.Checkpoint, 5 * time.Minute},
		{"Retention", &c.Retention, 720 * time.Hour},
		{"EpochAge", &c.EpochAge, 24 * time.Hour},
	} {
		if *d.value < 0 {
			return &FieldError{Field: d.field, Problem: "must not be negative"}
		}
		if *d.value == 0 {
			*d.value = d.zero
		}
	}
	if err := membership.CheckSettings(c.Settings); err != nil {
		return err
	}
	if c.EpochBytes < 0 {
		return &FieldError{Field: "EpochBytes", Problem: "must not be negative"}
	}
	if c.EpochBytes == 0 {
		c.EpochBytes = 4 << 20
	}
	if len(c.Listen) == 0 && c.replicated() {
		c.Listen = []string{"0.0.0.0:9004"}
	}
	if c.seams.Wall == nil {
		c.seams.Wall = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// ownSettings are the settings that this master tells the others, by name.
func (c *Config) ownSettings() *liveness.Settings {
	signed := "no"
	if c.RequireSigned {
		signed = "yes"
	}
	all := []liveness.Setting{{Name: "require-signed", Value: signed}}
	for name, value := range c.Settings {
		all = append(all, liveness.Setting{Name: name, Value: value})
	}
	slices.SortFunc(all, func(a, b liveness.Setting) int { return strings.Compare(a.Name, b.Name) })
	return &liveness.Settings{OfflineAfter: c.OfflineAfter, Retention: c.Retention, Others: all}
}

// wall is the wall clock in Unix milliseconds.
func (c *Config) wall() int64 { return c.seams.Wall().UnixMilli() }

// replicated reports whether the store is more than a single master.
func (c *Config) replicated() bool {
	return len(c.Peers) > 0 || c.Secret != "" || len(c.Listen) > 0
}

// orBackground is the context to use where a caller gave one or none.
func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}
