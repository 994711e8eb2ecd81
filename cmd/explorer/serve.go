package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/settings"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer"
)

func (p *program) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve as a master (what happens without a command, too)",
	}
	m := newMaster(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ready := make(chan struct{})
		var reload func()
		settings.OnHangup(cmd.Context(), ready, func() { reload() })
		if err := m.load(p.env); err != nil {
			return err
		}
		log, err := m.log.Logger(p.err)
		if err != nil {
			return err
		}
		if m.cfg.RPCAddr == "" && m.cfg.RPCSocket == "" {
			return m.explain(&crdtstore.FieldError{Field: "rpc-addr", Problem: "and rpc-socket are both empty; nobody could reach this master"})
		}
		server, err := explorer.New(m.cfg, log)
		if err != nil {
			return m.explain(err)
		}
		reload = func() { m.reload(p.env, server, log) }
		return m.explain(server.Run(cmd.Context(), func() { close(ready) }))
	}
	return cmd
}

// master is the settings of a master.
type master struct {
	cfg explorer.Config
	log settings.Log
	set *settings.Set
}

func newMaster(flags *pflag.FlagSet) *master {
	m := &master{cfg: explorer.DefaultConfig(), log: settings.DefaultLog(), set: settings.New(flags)}
	m.cfg.Version = programVersion()
	c := &m.cfg
	flags.SortFlags = false
	m.set.Add([]settings.Setting{
		{Name: "data-dir", Env: "EXPLORER_DATA_DIR", Value: &c.DataDir, Usage: "`directory` of records, identity and tokens"},
		{Name: "rpc-addr", Env: "EXPLORER_TCP_ADDR", Value: &c.RPCAddr, Usage: "`host:port` of the API; empty: none"},
		{Name: "rpc-socket", Env: "EXPLORER_RPC_SOCKET", Value: &c.RPCSocket, Usage: "unix socket of the API, a `path`; empty: none"},
		{Name: "ui-addr", Env: "EXPLORER_UI_ADDR", Value: &c.UIAddr, Usage: "`host:port` of the page; empty: none"},
		{Name: "mesh-addr", Env: "EXPLORER_MESH_ADDR", Value: &c.MeshAddr, Usage: "`host:port` or multiaddr for other masters; 0.0.0.0 is all addresses, IPv4 and IPv6 (default 0.0.0.0:9004, but nothing listens without this flag, peers or a secret)"},
		{Name: "edge-addr", Env: "EXPLORER_EDGE_ADDR", Value: &c.EdgeAddr, Usage: "`host:port` where agents connect to, so that nodes which only dial out can be reached; or off (default 0.0.0.0:9005; off in single-master mode)"},
		{Name: "peer-masters", Env: "PEER_MASTERS", Value: &c.PeerMasters, Usage: "other masters: IP, host, host:port or multiaddr; may name this one too (default none: single-master mode)"},
		{Name: "advertise", Env: "EXPLORER_ADVERTISE", Value: &c.Advertise, Usage: "addresses that others should use: host, host:port, multiaddr, rpc=URL, ui=URL (default those listened on)"},
		{Name: "cluster-secret-file", Env: "EXPLORER_CLUSTER_SECRET_FILE", Value: &c.ClusterSecretFile, Usage: "`file` with the secret that all masters share; or the secret itself in $EXPLORER_CLUSTER_SECRET"},
		{Name: "cluster-secret", Env: "EXPLORER_CLUSTER_SECRET", Value: &c.ClusterSecret, OnlyEnv: true},
		{Name: "auth", Env: "EXPLORER_AUTH", Value: &c.Auth, Usage: "who needs a token: auto (beyond this machine, to administer and for VM calls), off or all"},
		{Name: "require-signed", Env: "EXPLORER_REQUIRE_SIGNED", Value: &c.RequireSigned, Usage: "refuse nodes that do not sign their reports (default false)"},
		{Name: "heartbeat-interval", Env: "EXPLORER_HEARTBEAT_INTERVAL", Value: &c.HeartbeatInterval, Usage: "how often nodes should say that they live"},
		{Name: "offline-after", Env: "EXPLORER_OFFLINE_AFTER", Value: &c.OfflineAfter, Usage: "how long a node may be silent before it is offline"},
		{Name: "retention", Env: "EXPLORER_RETENTION", Value: &c.Retention, Usage: "how long silent and removed nodes are remembered"},
		{Name: "name", Env: "EXPLORER_NAME", Value: &c.Name, Usage: "what people call this master (default the hostname)"},
		{Name: "aliases", Env: "EXPLORER_ALIASES", Value: &c.Aliases, Usage: "other names of methods, such as Explorer.heartbeat=node_heartbeat (default none)"},
		{Name: "proxy-methods", Env: "EXPLORER_PROXY_METHODS", Value: &c.ProxyMethods, Usage: "further methods of nodes that the method proxy may call (default none)"},
	}...)
	m.set.Add(m.log.Settings("EXPLORER_")...)
	m.set.ConfigFile("EXPLORER_CONFIG")
	return m
}

// load takes the values that are not given by flags.
func (m *master) load(env func(string) (string, bool)) error {
	if err := m.set.Load(env); err != nil {
		return err
	}
	// The secret and its file are one value: the stronger source has it.
	switch file, secret := m.set.Source("cluster-secret-file"), m.set.Source("cluster-secret"); {
	case file > secret:
		m.cfg.ClusterSecret = ""
	case secret > file:
		m.cfg.ClusterSecretFile = ""
	}
	return nil
}

// explain says where to change a value that cannot be used.
func (m *master) explain(err error) error {
	var field *crdtstore.FieldError
	if !errors.As(err, &field) {
		return err
	}
	return &settings.UsageError{Err: fmt.Errorf("%s: %s", m.set.Place(field.Field), field.Problem)}
}

// reload takes over what can change while the master runs: the level of the log and the
// cluster secret. Tokens are looked at with every request anyway. What cannot be used
// changes nothing.
func (m *master) reload(env func(string) (string, bool), server *explorer.Server, log *slog.Logger) {
	now := newMaster(pflag.NewFlagSet("", pflag.ContinueOnError))
	err := now.set.Again(m.set)
	if err == nil {
		err = now.load(env)
	}
	if err == nil {
		err = now.explain(server.Reload(now.cfg))
	}
	if err == nil {
		err = m.log.SetLevel(now.log.Level)
	}
	if err != nil {
		log.Error("the settings cannot be read again, all stays as it was", slog.Any("error", err))
		return
	}
	if later := m.set.Changed(now.set, "log-level", "cluster-secret-file"); len(later) > 0 {
		log.Warn("settings have changed that take a restart", slog.Any("settings", later))
	}
	log.Info("settings read again", slog.String("log_level", now.log.Level))
}
