package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/settings"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

// vmTimeout is how long a call to a node may take where nobody says so: a node
// may take 120 s to deploy, and losing a master on the way takes time as well.
const vmTimeout = 150 * time.Second

// onVM is a command that goes to the node of a VM.
type onVM struct {
	*remote
	node, secretFile, repeat string
	whole                    bool // the sid or name has to be given as a whole
}

const onceOnly = `

The call is carried out once, whatever happens to masters on the way. Where its outcome
stays unknown, the error names the operation: the same command with --repeat and that
name asks for the answer. If the call has never arrived it is carried out then. If it has,
it is not carried out again for as long as the node's agent remembers it: at least 10
minutes from its end, and usually 24 hours; after that it would be. A node whose agent
remembers nothing is not asked again at all.`

// vmCalls are the commands that call the node of a VM.
func vmCalls(r *remote) []*cobra.Command {
	return []*cobra.Command{
		vmDeploy(r),
		vmOperation(r, "start", "Start a VM"),
		vmOperation(r, "stop", "Stop a VM"),
		vmOperation(r, "restart", "Restart a VM"),
		vmOperation(r, "delete", "Delete a VM and all that is on it"),
		vmLogs(r), vmStats(r), vmExec(r), vmConsole(r),
	}
}

// bind adds the flags of calls about a VM; changes tells whether the command
// changes it.
func (v *onVM) bind(cmd *cobra.Command, changes bool) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&v.node, "node", "", "the `node` that runs it, where the sid alone is not enough")
	flags.StringVar(&v.secretFile, "secret-file", "", "`file` with the secret of the VM")
	if changes {
		flags.StringVar(&v.repeat, "repeat", "", "ask for the answer of the `operation` of that name, whose outcome is unknown; best within 10 minutes, see above")
		cmd.Long = cmd.Short + "." + onceOnly
	}
}

// dial returns a client whose calls may take as long as a node may.
func (v *onVM) dial() (*client.Client, error) {
	c, err := v.remote.dial()
	if v.set.Source("timeout") == settings.FromDefault {
		v.timeout = vmTimeout
	}
	return c, err
}

// call calls a method about a VM, "" for a new one, at the VM's node.
func (v *onVM) call(ctx context.Context, method, sid string, params map[string]any) (json.RawMessage, error) {
	c, err := v.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	node, sid, secret, err := v.about(ctx, c, sid)
	if err != nil {
		return nil, err
	}
	all := map[string]any{"node_id": node}
	if sid != "" {
		all["sid"] = sid
	}
	if secret != "" {
		all["secret"] = secret
	}
	if v.repeat != "" {
		all["op_id"], all["op_again"] = v.repeat, true
	}
	maps.Copy(all, params)
	return v.callOn(ctx, c, method, all)
}

// about returns the node and the sid of a VM, which may be given by less, and the VM's
// secret. The node is looked up before the call, so that a call that is repeated finds it
// even where the VM is gone by then, as it is after a delete.
func (v *onVM) about(ctx context.Context, c *client.Client, given string) (node, sid, secret string, err error) {
	if v.secretFile != "" {
		b, err := os.ReadFile(v.secretFile)
		if err != nil {
			return "", "", "", &settings.UsageError{Err: fmt.Errorf("--secret-file: %w", err)}
		}
		secret = strings.TrimRight(string(b), "\r\n")
	}
	if v.node != "" {
		return v.node, given, secret, nil // the node knows it, whatever the masters know
	}
	vm, _, err := v.findVM(ctx, c, "", given, v.whole)
	return vm.NodeID, vm.SID, secret, err
}

// vmOperation makes the commands that change what a VM does.
func vmOperation(r *remote, word, short string) *cobra.Command {
	v := &onVM{remote: r, whole: word == "delete"}
	cmd := &cobra.Command{Use: word + " SID", Short: short, Args: needs("the SID or name of a VM")}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		result, err := v.call(cmd.Context(), word+"_vm", args[0], nil)
		if err != nil {
			return err
		}
		return v.print(result, args[0], word)
	}
	v.bind(cmd, true)
	return cmd
}

// print prints what a node says of a VM that was changed. The next report of the
// node says it to the masters.
func (v *onVM) print(result json.RawMessage, sid, word string) error {
	return show(v.remote, result, func(raw json.RawMessage) {
		var vm struct{ SID, State string }
		_ = json.Unmarshal(raw, &vm) // nodes may answer with anything
		if vm.SID == "" {
			vm.SID = sid
		}
		if vm.State == "" {
			vm.State = "done"
		}
		fmt.Fprintf(v.out, "%s %s: %s\n", word, printable(vm.SID), printable(vm.State))
	})
}

func vmDeploy(r *remote) *cobra.Command {
	v := &onVM{remote: r}
	var name, image, memory, slice string
	var cpu uint64
	cmd := &cobra.Command{Use: "deploy --node NODE --name NAME", Short: "Deploy a VM on a node"}
	v.bind(cmd, true)
	flags := cmd.Flags()
	flags.Lookup("node").Usage = "the `node` to deploy it on"
	flags.Lookup("secret-file").Usage = "`file` with a secret that every later call has to show"
	flags.StringVar(&name, "name", "", "the VM's `name`")
	flags.StringVar(&image, "image", "", "its `image` (default the node's)")
	flags.Uint64Var(&cpu, "cpu", 1, "its `cores`")
	flags.StringVar(&memory, "memory", "1Gi", "its memory, a `size` in whole Mi")
	flags.StringVar(&slice, "slice", "", "the `slice` of the node that it takes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		bytes, err := parseSize(memory)
		switch {
		case v.node == "":
			err = errors.New("--node: is missing; say which node to deploy on")
		case name == "":
			err = errors.New("--name: is missing")
		case err != nil:
			err = fmt.Errorf("--memory: %w", err)
		case bytes == 0 || bytes%(1<<20) != 0:
			err = fmt.Errorf("--memory: %q is not a whole number of Mi", memory)
		}
		if err != nil {
			return &settings.UsageError{Err: err}
		}
		params := map[string]any{"name": name, "cpu_count": cpu, "memory_mb": bytes >> 20}
		if image != "" {
			params["image"] = image
		}
		if slice != "" {
			params["slice_sid"] = slice
		}
		result, err := v.call(cmd.Context(), "deploy_vm", "", params)
		if err != nil {
			return err
		}
		return v.print(result, name, "deploy")
	}
	return cmd
}

func vmStats(r *remote) *cobra.Command {
	v := &onVM{remote: r}
	cmd := &cobra.Command{Use: "stats SID", Short: "Show what a VM uses, as its node says now", Args: needs("the SID or name of a VM")}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		result, err := v.call(cmd.Context(), "vm_stats", args[0], nil)
		if err != nil {
			return err
		}
		return show(r, result, func(stats map[string]json.RawMessage) {
			t := newTable(r.out)
			for _, name := range slices.Sorted(maps.Keys(stats)) {
				t.row(name, strings.Trim(string(stats[name]), `"`))
			}
			t.flush()
		})
	}
	v.bind(cmd, false)
	return cmd
}

func vmExec(r *remote) *cobra.Command {
	v := &onVM{remote: r}
	cmd := &cobra.Command{
		Use: "exec SID -- COMMAND [ARGUMENT...]", Short: "Run a command in a VM and print what it prints",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("%q needs the SID or name of a VM and, behind --, a command", cmd.CommandPath())
			}
			return nil
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		result, err := v.call(cmd.Context(), "vm_exec", args[0], map[string]any{"command": args[1:]})
		if err != nil {
			return err
		}
		var ran struct {
			ExitCode       int `json:"exit_code"`
			Stdout, Stderr string
		}
		_ = json.Unmarshal(result, &ran) // nodes may answer with anything
		if err := show(r, result, func(json.RawMessage) {
			fmt.Fprint(r.out, ran.Stdout)
			fmt.Fprint(r.err, ran.Stderr)
		}); err != nil {
			return err
		}
		if ran.ExitCode != 0 {
			return fmt.Errorf("%s ended with exit code %d", args[1], ran.ExitCode)
		}
		return nil
	}
	v.bind(cmd, true)
	return cmd
}

func vmLogs(r *remote) *cobra.Command {
	v := &onVM{remote: r}
	lines, follow := 100, false
	cmd := &cobra.Command{Use: "logs SID", Short: "Print the last lines of a VM's log", Args: needs("the SID or name of a VM")}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if lines < 1 {
			return &settings.UsageError{Err: fmt.Errorf("--lines: is %d; must be 1 or more", lines)}
		}
		if follow {
			return v.follow(cmd.Context(), args[0], lines)
		}
		result, err := v.call(cmd.Context(), "vm_logs", args[0], map[string]any{"lines": lines})
		if err != nil {
			return err
		}
		return show(r, result, func(log struct{ Lines []string }) {
			for _, line := range log.Lines {
				fmt.Fprintln(r.out, printable(line))
			}
		})
	}
	v.bind(cmd, false)
	cmd.Flags().IntVar(&lines, "lines", lines, "how many")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with those that come, until interrupted")
	return cmd
}

// stream returns where a master serves a stream of a VM, and what to show there.
func (v *onVM) stream(ctx context.Context, c *client.Client, sid, name string, query url.Values) (path string, h http.Header, err error) {
	node, sid, secret, err := v.about(ctx, c, sid)
	if err != nil {
		return "", nil, err
	}
	if query == nil {
		query = url.Values{}
	}
	query.Set("node_id", node)
	if h = (http.Header{}); secret != "" {
		h.Set("X-VM-Secret", secret)
	}
	return "/vms/" + url.PathEscape(sid) + "/" + name + "?" + query.Encode(), h, nil
}
