package main

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/settings"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func (p *program) nodesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List, show, watch and administer nodes",
		Long: `List, show, watch and administer nodes. A node is named by its id or by the beginning of it,
where that is enough to tell it from all others; remove takes whole ids only.`,
	}
	r := p.bind(cmd)
	nodesList(cmd, r)
	list := &cobra.Command{Use: "list", Short: "List nodes (what happens without a command, too)"}
	nodesList(list, r)
	cmd.AddCommand(list, nodesGet(r), nodesWatch(r),
		overrideCommand(r, "drain", "Mark a node as drained: its capacity is no longer offered", "is drained"),
		overrideCommand(r, "undrain", "Take the mark of drain away", "is not drained"),
		nodeLabel(r), nodeRemove(r), nodesEndPreservation(r),
	)
	return cmd
}

func nodesList(cmd *cobra.Command, r *remote) {
	var (
		q                  crdtstore.NodeQuery
		mru, sru, hru      string
		pages              paging
		labels             map[string]string
		status, bySettings = "", settings.New(cmd.Flags())
	)
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&status, "status", "", "only those that are `online`, suspect or offline")
	bySettings.Add(settings.Setting{Name: "label", Value: &labels, Usage: "only those with all of these labels"})
	flags.StringVar(&q.Q, "q", "", "only those with this `text` in id, hostname, address, label or VM")
	flags.StringVar(&q.Location, "location", "", "only those in a `country or city`")
	flags.Float64Var(&q.MinFree.CRU, "min-cru", 0, "only those with so many free `cores`")
	flags.StringVar(&mru, "min-mru", "", "only those with so much free memory, a `size` like 512Mi or 8Gi")
	flags.StringVar(&sru, "min-sru", "", "only those with so much free SSD, a `size`")
	flags.StringVar(&hru, "min-hru", "", "only those with so much free HDD, a `size`")
	flags.Uint64Var(&q.MinFree.Slices, "min-slices", 0, "only those with so many free `slices`")
	flags.StringVar(&q.Sort, "sort", "", "order by a `field`: node_id, hostname, status, location, last_seen, created_at, updated_at, free_cru, free_mru, free_sru, free_hru, free_slices or vms; with - before it, the other way round")
	flags.BoolVar(&q.IncludeRemoved, "include-removed", false, "removed ones too")
	flags.BoolVar(&q.Conflict, "conflict", false, "only those whose id several machines claim")
	pages.bind(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, s := range []struct {
			flag, text string
			to         *uint64
		}{{"min-mru", mru, &q.MinFree.MRU}, {"min-sru", sru, &q.MinFree.SRU}, {"min-hru", hru, &q.MinFree.HRU}} {
			var err error
			if *s.to, err = parseSize(s.text); err != nil {
				return &settings.UsageError{Err: fmt.Errorf("--%s: %w", s.flag, err)}
			}
		}
		q.Status, q.Labels = crdtstore.Status(status), labels
		query := func(limit int, cursor string) any {
			q.Limit, q.Cursor = limit, cursor
			return given(q)
		}
		return list(cmd.Context(), r, listing[crdtstore.Node]{pages, "list_nodes", "nodes", query, func(page []crdtstore.Node) {
			t := newTable(r.out, nodeHead...)
			for _, n := range page {
				t.row(nodeRow(n)...)
			}
			t.flush()
			r.warnOfConflicts(page)
		}})
	}
}

var nodeHead = []string{"NODE", "STATUS", "HOST", "LOCATION", "CORES", "MEMORY", "SSD", "HDD", "SLICES", "VMS", "SEEN"}

// nodeRow is a node in a table: of capacity, what is used and what there is.
func nodeRow(n crdtstore.Node) []string {
	return []string{
		n.NodeID, nodeStatus(n), n.Hostname, place(n.Location),
		number(n.Usage.CRU) + "/" + number(n.Total.CRU),
		size(n.Usage.MRU) + "/" + size(n.Total.MRU),
		size(n.Usage.SRU) + "/" + size(n.Total.SRU),
		size(n.Usage.HRU) + "/" + size(n.Total.HRU),
		fmt.Sprintf("%d/%d", n.Usage.Slices, n.SlicesTotal),
		fmt.Sprint(len(n.VMs)), seen(n),
	}
}

func nodeStatus(n crdtstore.Node) string {
	s := string(n.Status)
	if n.RemovedAt != nil {
		s = "removed"
	}
	if n.Drained {
		s += ",drained"
	}
	if n.Conflict != nil {
		s += ",conflict"
	}
	if len(n.Trouble) > 0 {
		s += ",trouble"
	}
	return s
}

func place(l record.Location) string {
	return strings.Trim(l.City+", "+l.Country, ", ")
}

// seen is how long ago a master heard of a node. Masters say it as an age,
// which holds whatever the clocks say; where none does, there is only a time.
func seen(n crdtstore.Node) string {
	if len(n.SeenBy) == 0 {
		return ago(n.LastSeen)
	}
	last := slices.MinFunc(n.SeenBy, func(a, b record.Observer) int { return cmp.Compare(a.AgeS, b.AgeS) })
	return age(time.Duration(last.AgeS * float64(time.Second)))
}

func nodesGet(r *remote) *cobra.Command {
	cmd := &cobra.Command{Use: "get NODE", Short: "Show a node and its VMs", Args: needs("the id of a NODE")}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		result, err := r.callNode(cmd.Context(), "get_node", args[0], nil)
		if err != nil {
			return err
		}
		return show(r, result, r.printNode)
	}
	return cmd
}

func (r *remote) printNode(n crdtstore.Node) {
	t := newTable(r.out)
	t.row("node", n.NodeID)
	status := nodeStatus(n)
	if n.Reason != "" {
		status += ": " + n.Reason
	}
	t.row("status", status)
	for _, text := range n.Trouble {
		t.row("trouble", text)
	}
	t.row("host", n.Hostname)
	t.row("location", place(n.Location))
	t.row("version", n.Version)
	t.row("address", n.SocketPath)
	if n.MyceliumIP != "" {
		t.row("mycelium", n.MyceliumIP)
	}
	t.row("cores", number(n.Usage.CRU)+" of "+number(n.Total.CRU))
	t.row("memory", size(n.Usage.MRU)+" of "+size(n.Total.MRU))
	t.row("SSD", size(n.Usage.SRU)+" of "+size(n.Total.SRU))
	t.row("HDD", size(n.Usage.HRU)+" of "+size(n.Total.HRU))
	t.row("slices", fmt.Sprintf("%d of %d", n.Usage.Slices, n.SlicesTotal))
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
		labels = append(labels, k+"="+n.Labels[k])
	}
	t.row("labels", strings.Join(labels, ", "))
	t.row("up", age(time.Duration(min(n.UptimeS, 1<<31))*time.Second))
	var observers []string
	for _, w := range n.SeenBy {
		observers = append(observers, fmt.Sprintf("%s %s ago", w.Master, age(time.Duration(w.AgeS*float64(time.Second)))))
	}
	t.row("seen by", strings.Join(observers, ", "))
	t.row("last seen", n.LastSeen.Format(time.RFC3339))
	t.row("signed", map[bool]string{true: "yes", false: "no"}[n.Signed])
	t.row("account", fmt.Sprintf("boot %d, sequence %d", n.Boot, n.Seq))
	t.row("created", n.CreatedAt.Format(time.RFC3339))
	t.row("updated", n.UpdatedAt.Format(time.RFC3339))
	if n.RemovedAt != nil {
		t.row("removed", n.RemovedAt.Format(time.RFC3339))
	}
	if n.Conflict != nil {
		t.row("conflict", fmt.Sprintf("%s, the latest since %s", n.Conflict.Reason, n.Conflict.Since.Format(time.RFC3339)))
	}
	t.flush()
	if n.Conflict != nil {
		fmt.Fprintln(r.out)
		r.printClaims(n)
	}
	if len(n.VMs) > 0 {
		fmt.Fprintln(r.out)
		t := newTable(r.out, "SID", "NAME", "STATE", "CPU", "MEMORY", "IP")
		for _, vm := range n.VMs {
			t.row(vm.SID, vm.Name, vm.State, fmt.Sprint(vm.CPU), size(vm.Memory), vm.IP)
		}
		t.flush()
	}
}

// printClaims prints who claims one node id. The account that is marked is the
// one that is shown as the node's.
func (r *remote) printClaims(n crdtstore.Node) {
	t := newTable(r.out, "CLAIM", "HOST", "ADDRESS", "KEY", "SINCE", "ACCOUNT")
	for _, claim := range n.Conflict.Claims {
		mark, key := "other", "unsigned"
		if claim.Shown {
			mark = "shown"
		}
		if len(claim.PublicKey) > 0 {
			key = base64.StdEncoding.EncodeToString(claim.PublicKey) // as in JSON
		}
		t.row(mark, claim.Hostname, claim.SocketPath, key, claim.Since.Format(time.RFC3339), fmt.Sprintf("boot %d, sequence %d", claim.Boot, claim.Seq))
	}
	t.flush()
}

// warnOfConflicts says which nodes of a list several machines claim.
func (r *remote) warnOfConflicts(nodes []crdtstore.Node) {
	for _, n := range nodes {
		if n.Conflict == nil {
			continue
		}
		var who []string
		for _, c := range n.Conflict.Claims {
			who = append(who, cmp.Or(c.Hostname, "a machine without a name")+" at "+cmp.Or(c.SocketPath, "no address"))
		}
		fmt.Fprintf(r.err, "conflict: %s is claimed by %s; 'explorer nodes get %[1]s' shows the claims\n", printable(n.NodeID), printable(strings.Join(who, " and by ")))
	}
}

// nodesEndPreservation makes the command end-preservation.
func nodesEndPreservation(r *remote) *cobra.Command {
	cmd := &cobra.Command{
		Use: "end-preservation", Args: cobra.NoArgs,
		Short: "Say that nodes are dead which fell silent together",
		Long: "When a large part of the grid falls silent at once, its nodes are suspect and not offline for a while,\n" +
			"for a fault of the network or of a master is likelier. This ends it, on all masters that can be reached.",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		result, err := r.call(cmd.Context(), "end_preservation", nil)
		if err != nil {
			return err
		}
		return show(r, result, func(e struct{ Masters int }) {
			fmt.Fprintf(r.out, "silent nodes are offline again, on %d masters\n", e.Masters)
		})
	}
	return cmd
}

// overrideCommand makes the commands drain and undrain.
func overrideCommand(r *remote, name, short, done string) *cobra.Command {
	return &cobra.Command{
		Use: name + " NODE", Short: short, Args: needs("the id of a NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			result, err := r.callNode(cmd.Context(), name+"_node", args[0], nil)
			return r.printChange(result, err, done)
		},
	}
}

// printChange prints what holds of a node now that it was changed.
func (r *remote) printChange(result json.RawMessage, err error, done string) error {
	if err != nil {
		return err
	}
	return show(r, result, func(n crdtstore.Node) {
		fmt.Fprintf(r.out, "node %s %s\n", printable(n.NodeID), done)
	})
}

func nodeLabel(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "label NODE NAME=VALUE... NAME-...",
		Short: "Set labels of a node, and take away those with - behind their name",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("%q needs the id of a NODE and labels: NAME=VALUE to set one, NAME- to take it away", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			labels := map[string]*string{}
			for _, arg := range args[1:] {
				name, value, set := strings.Cut(arg, "=")
				if !set {
					name, set = strings.CutSuffix(arg, "-")
					if !set {
						return &settings.UsageError{Err: fmt.Errorf("%q is neither NAME=VALUE nor NAME-", arg)}
					}
					labels[name] = nil
				} else {
					labels[name] = &value
				}
				if name == "" {
					return &settings.UsageError{Err: fmt.Errorf("%q has no name", arg)}
				}
			}
			result, err := r.callNode(cmd.Context(), "label_node", args[0], map[string]any{"labels": labels})
			return r.printChange(result, err, "is labelled")
		},
	}
}

func nodeRemove(r *remote) *cobra.Command {
	reason := ""
	cmd := &cobra.Command{
		Use: "remove NODE", Short: "Remove a node until it boots again", Args: needs("the id of a NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			params := map[string]any{"node_id": args[0]}
			if reason != "" {
				params["reason"] = reason
			}
			// By its whole id only: the next one that begins alike is another node.
			result, err := r.call(cmd.Context(), "remove_node", params)
			return r.printChange(result, err, "is removed; it comes back when it boots again")
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}
