package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/output"
	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/settings"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// program is what all commands have in common.
type program struct {
	env      func(string) (string, bool)
	out, err io.Writer
	// ran is set once a command was understood; errors before that are about
	// how it was called.
	ran bool
}

// run runs the program and returns its exit code.
func run(ctx context.Context, args []string, env func(string) (string, bool), out, errOut io.Writer) int {
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	stdout := output.NewStdout(out, lost)
	p := &program{env: env, out: stdout, err: errOut}
	root := p.rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !p.ran {
		err = &settings.UsageError{Err: err}
	}
	var wire *jsonrpc.Error
	if errors.As(err, &wire) && wire.Code == jsonrpc.CodeInvalidParams {
		err = &settings.UsageError{Err: err}
	}
	if stdout.Err() != nil {
		err = stdout.Err() // whatever else came of it: no master is to blame
	}
	if err != nil && !errors.Is(err, errDiffer) && !errors.Is(err, errNotWell) {
		p.complain(cmd, err)
	}
	return settings.ExitCode(err)
}

// complain tells a person what went wrong and what to do about it.
func (p *program) complain(cmd *cobra.Command, err error) {
	text := strings.ReplaceAll(err.Error(), "\n", "\n\t")
	fmt.Fprintf(p.err, "explorer: %s\n", printable(text))
	if hint := hintOf(err); hint != "" && !strings.Contains(text, hint) {
		fmt.Fprintf(p.err, "hint: %s\n", printable(hint))
	}
	if settings.ExitCode(err) == settings.ExitUsage {
		fmt.Fprintf(p.err, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
}

// hintOf returns what a master says to do about an error.
func hintOf(err error) string {
	var lost *client.TransportError
	if errors.As(err, &lost) && lost.OpID != "" {
		return "the same command with --repeat " + lost.OpID + " asks for its answer; within 10 minutes it does nothing twice"
	}
	var wire *jsonrpc.Error
	var data jsonrpc.ErrorData
	if errors.As(err, &wire) && wire.Data != nil && wire.DecodeData(&data) == nil {
		return data.Hint
	}
	var status *client.StatusError
	if errors.As(err, &status) {
		return status.Hint
	}
	return ""
}

func (p *program) rootCommand() *cobra.Command {
	root := p.serveCommand()
	root.Use = "explorer"
	root.Short = "A master of a compute grid"
	root.Long = `A master of a compute grid: takes registrations and heartbeats of nodes, keeps
their records together with other masters, and forwards VM calls.

Without a command it serves. Each value is taken from its flag, its environment
variable, the config file or its default, in this order.`
	root.SilenceErrors, root.SilenceUsage = true, true
	root.AddCommand(
		p.serveCommand(), p.healthCommand(), p.statusCommand(), p.nodesCommand(), p.vmsCommand(),
		p.mastersCommand(), p.eventsCommand(), p.diffCommand(), p.backupCommand(), p.restoreCommand(), p.tokenCommand(), p.idCommand(), p.openRPCCommand(), p.versionCommand(),
	)
	p.prepare(root)
	return root
}

// prepare gives every command what all have in common.
func (p *program) prepare(cmd *cobra.Command) {
	if cmd.Args == nil {
		cmd.Args = noArgs
	}
	if f := cmd.RunE; f != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			p.ran = true
			return f(cmd, args)
		}
	}
	for _, c := range cmd.Commands() {
		p.prepare(c)
	}
}

// noArgs refuses arguments, which may be misspelled commands.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasSubCommands() {
		return fmt.Errorf("%q takes no argument %q", cmd.CommandPath(), args[0])
	}
	text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(text)
}

// needs refuses anything but the named arguments.
func needs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("%q needs %s", cmd.CommandPath(), strings.Join(names[len(args):], " and "))
		}
		if len(args) > len(names) {
			return fmt.Errorf("%q takes no argument %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}
