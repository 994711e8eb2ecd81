package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/output"
	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/settings"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent"
)

// version is set by the linker.
var version = "dev"

// program is one start of workeragent.
type program struct {
	cfg    workeragent.Config
	log    settings.Log
	json   bool
	set    *settings.Set
	env    func(string) (string, bool)
	stdout io.Writer
	stderr io.Writer
}

// run runs the program and returns its exit code.
func run(ctx context.Context, args []string, env func(string) (string, bool), stdout, stderr io.Writer) int {
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	out := output.NewStdout(stdout, lost)
	p := newProgram(env, out, stderr)
	cmd := p.command()
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	if out.Err() != nil {
		err = out.Err() // whatever else came of it
	}
	if err != nil {
		fmt.Fprintf(stderr, "workeragent: %v\n", err)
	}
	return settings.ExitCode(err)
}

func newProgram(env func(string) (string, bool), stdout, stderr io.Writer) *program {
	p := &program{cfg: workeragent.DefaultConfig(), log: settings.DefaultLog(), env: env, stdout: stdout, stderr: stderr}
	p.cfg.Version = programVersion()
	return p
}

func (p *program) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "workeragent",
		Short:         "Report this machine and its VMs to the explorers of the grid",
		Version:       p.cfg.Version,
		Args:          noArgs,
		RunE:          p.run,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return p.set.Load(p.env)
		},
	}
	root.SetVersionTemplate("workeragent {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	p.set = settings.New(root.PersistentFlags())
	p.set.Add(p.settings()...)
	p.set.ConfigFile("AGENT_CONFIG")
	root.PersistentFlags().SortFlags = false
	root.Flags().SortFlags = false

	status := &cobra.Command{
		Use: "status", Short: "Show how the agent that runs here stands with each explorer",
		Args: noArgs, RunE: p.status,
	}
	id := &cobra.Command{
		Use: "id", Short: "Show the id of this agent's key, making the key if there is none",
		Args: noArgs, RunE: p.id,
	}
	for _, c := range []*cobra.Command{status, id} {
		c.Flags().BoolVar(&p.json, "json", false, "print JSON")
	}
	root.AddCommand(
		&cobra.Command{
			Use: "run", Short: "Report until told to stop; this is what happens without a command",
			Args: noArgs, RunE: p.run,
		},
		status, id,
		&cobra.Command{
			Use: "version", Short: "Show the version",
			Args: noArgs, RunE: func(*cobra.Command, []string) error {
				_, err := fmt.Fprintln(p.stdout, "workeragent", p.cfg.Version)
				return err
			},
		},
	)
	return root
}

// settings are the values that flags, environment and config file can give.
func (p *program) settings() []settings.Setting {
	c := &p.cfg
	s := []settings.Setting{
		{Name: "explorers", Env: "EXPLORER_ADDRESSES", Value: &c.Explorers, Usage: "`addresses` of the masters to report to: unix:///path, tcp://host:port, http(s)://host:port, host[:port], or /ip4/.../tcp/9005 with or without /p2p/ID, a tunnel; agents learn of the others"},
		{Name: "node-id", Env: "NODE_ID", Value: &c.NodeID, Usage: "`name` of the node; empty: the id of the agent's key"},
		{Name: "compute", Env: "COMPUTE_ADDRESS", Value: &c.Compute, Usage: "`address` of this machine's compute service; empty: there is none"},
		{Name: "advertise-compute", Env: "COMPUTE_ADVERTISE", Value: &c.AdvertiseCompute, Usage: "`address` at which masters call the compute service itself, past the agent, which then cannot see to it that nothing runs twice; empty: they call the agent, by tunnels where they are on other machines"},
		{Name: "compute-poll", Env: "AGENT_COMPUTE_POLL", Value: &c.ComputePoll, Usage: "time between two looks at the VMs"},
		{Name: "compute-grace", Env: "AGENT_COMPUTE_GRACE", Value: &c.ComputeGrace, Usage: "time for which VMs stay listed as they were when the compute service stops answering"},
		{Name: "labels", Env: "NODE_LABELS", Value: &c.Labels, Usage: "names and values by which people find the node"},
		{Name: "country", Env: "NODE_COUNTRY", Value: &c.Location.Country, Usage: "`country` where the machine stands"},
		{Name: "city", Env: "NODE_CITY", Value: &c.Location.City, Usage: "`city` where the machine stands"},
		{Name: "latitude", Env: "NODE_LATITUDE", Value: &c.Location.Latitude, Usage: "`degrees` north"},
		{Name: "longitude", Env: "NODE_LONGITUDE", Value: &c.Location.Longitude, Usage: "`degrees` east"},
		{Name: "data-dir", Env: "AGENT_DATA_DIR", Value: &c.DataDir, Usage: "`directory` of the agent's key and state"},
		{Name: "heartbeat-interval", Env: "AGENT_HEARTBEAT_INTERVAL", Value: &c.HeartbeatInterval, Usage: "time between heartbeats, unless the master says otherwise"},
		{Name: "token-file", Env: "AGENT_TOKEN_FILE", Value: &c.TokenFile, Usage: "`file` with the token for masters that ask for one; or the token itself in $AGENT_TOKEN"},
		{Name: "token", Env: "AGENT_TOKEN", Value: &c.Token, OnlyEnv: true},
	}
	return append(s, p.log.Settings("AGENT_")...)
}

// run reports until the context ends.
func (p *program) run(cmd *cobra.Command, _ []string) error {
	ready := make(chan struct{})
	var reload func()
	settings.OnHangup(cmd.Context(), ready, func() { reload() })
	log, err := p.log.Logger(p.stderr)
	if err != nil {
		return err
	}
	agent, err := workeragent.New(p.cfg, log)
	if err != nil {
		return p.explain(err)
	}
	reload = func() { p.reload(agent, log) }
	close(ready) // an agent can take another token before it has started
	return p.explain(agent.Run(cmd.Context()))
}

// explain says where to change a value that cannot be used.
func (p *program) explain(err error) error {
	var f *record.FieldError
	if errors.As(err, &f) {
		return usagef("%s %s", p.set.Place(f.Field), f.Problem)
	}
	return err
}

// reload takes over what can change while the agent runs: the level of the log and the
// token. What cannot be used changes nothing.
func (p *program) reload(agent *workeragent.Agent, log *slog.Logger) {
	now := newProgram(p.env, p.stdout, p.stderr)
	now.command()
	err := now.set.Again(p.set)
	if err == nil {
		err = now.set.Load(p.env)
	}
	if err == nil {
		err = now.explain(agent.Reload(now.cfg))
	}
	if err == nil {
		err = p.log.SetLevel(now.log.Level)
	}
	if err != nil {
		log.Error("the settings cannot be read again, all stays as it was", "error", err)
		return
	}
	if later := p.set.Changed(now.set, "log-level", "token-file"); len(later) > 0 {
		log.Warn("settings have changed that take a restart", "settings", later)
	}
	log.Info("settings read again", "log_level", now.log.Level)
}

// id prints the id of the key.
func (p *program) id(*cobra.Command, []string) error {
	dir, err := workeragent.ExpandPath(p.cfg.DataDir)
	if err != nil {
		return err
	}
	key, err := identity.Load(workeragent.KeyFile(dir))
	if err != nil {
		return err
	}
	if !p.json {
		_, err = fmt.Fprintln(p.stdout, key.ID())
		return err
	}
	node := p.cfg.NodeID
	if node == "" {
		node = key.ID()
	}
	return json.NewEncoder(p.stdout).Encode(map[string]string{"key_id": key.ID(), "node_id": node})
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command %q; see %s --help", args[0], cmd.CommandPath())
	}
	return nil
}

func usagef(format string, args ...any) error {
	return &settings.UsageError{Err: fmt.Errorf(format, args...)}
}

// programVersion is what the linker was told, or what the build knows.
func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); version == "dev" && ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return version
}
