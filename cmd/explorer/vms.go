package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

func (p *program) vmsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vms",
		Short: "List and show VMs, and call their nodes",
		Long: `List and show VMs, and call their nodes. A VM is named by its sid, by the beginning of it,
or by its name, where that is enough to tell it from all others; delete takes whole sids and
names only.`,
	}
	r := p.bind(cmd)
	p.vmsList(cmd, r)
	list := &cobra.Command{Use: "list", Short: "List VMs (what happens without a command, too)"}
	p.vmsList(list, r)
	cmd.AddCommand(list, p.vmsGet(r))
	cmd.AddCommand(vmCalls(r)...)
	return cmd
}

func (p *program) vmsList(cmd *cobra.Command, r *remote) {
	var q crdtstore.VMQuery
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&q.NodeID, "node", "", "only those of a `node`")
	flags.StringVar(&q.State, "state", "", "only those in a `state`, such as running")
	flags.StringVar(&q.Q, "q", "", "only those with this `text` in sid, name or address")
	var pages paging
	pages.bind(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		query := func(limit int, cursor string) any {
			q.Limit, q.Cursor = limit, cursor
			return given(q)
		}
		return list(cmd.Context(), r, listing[crdtstore.VM]{pages, "list_vms", "vms", query, func(page []crdtstore.VM) {
			t := newTable(r.out, "SID", "NAME", "STATE", "NODE", "CPU", "MEMORY", "IP", "AS OF")
			for _, vm := range page {
				t.row(vm.SID, vm.Name, vm.State, vm.NodeID, fmt.Sprint(vm.CPU), size(vm.Memory), vm.IP, asOf(vm))
			}
			t.flush()
		}})
	}
}

func asOf(vm crdtstore.VM) string {
	t, err := time.Parse(time.RFC3339, vm.AsOf)
	if err != nil {
		return vm.AsOf
	}
	return ago(t)
}

func (p *program) vmsGet(r *remote) *cobra.Command {
	node := ""
	cmd := &cobra.Command{Use: "get SID", Short: "Show a VM", Args: needs("the SID or name of a VM")}
	cmd.Flags().StringVar(&node, "node", "", "the `node` that runs it, where the sid alone is not enough")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := r.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		_, result, err := r.findVM(cmd.Context(), c, node, args[0], false)
		if err != nil {
			return err
		}
		return show(r, result, func(vm crdtstore.VM) {
			t := newTable(r.out)
			t.row("sid", vm.SID)
			t.row("name", vm.Name)
			t.row("state", vm.State)
			t.row("node", vm.NodeID)
			t.row("cpu", fmt.Sprint(vm.CPU))
			t.row("memory", size(vm.Memory))
			t.row("ip", vm.IP)
			t.row("as of", vm.AsOf)
			t.flush()
		})
	}
	return cmd
}

// given is the params of a query without those that have no value, so that
// they are the master's defaults.
func given(q any) map[string]any {
	b, err := json.Marshal(q)
	if err != nil {
		panic(err) // types of ours
	}
	var all map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // sizes need all their bits
	if err := d.Decode(&all); err != nil {
		panic(err)
	}
	maps.DeleteFunc(all, func(_ string, v any) bool {
		return v == nil || v == "" || v == false || v == json.Number("0")
	})
	return all
}
