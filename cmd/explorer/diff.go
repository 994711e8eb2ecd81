package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// errDiffer sets the exit code; all there is to say was said.
var errDiffer = errors.New("the masters differ")

func (p *program) diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "diff MASTER", Args: needs("the id or name of a MASTER"),
		Short: "Compare a master's records with another's",
		Long: `Compare the records of the master that is asked (--addr) with those of another one,
by id or name, and list the nodes that differ with their fields: "missing_here" and
"missing_there" where only one of the two knows the node, "history" where all that
is visible is alike. Nothing is changed. Masters that can talk become equal by
themselves within seconds.

The exit code is 0 when they are equal and 1 when they differ, as with diff(1). It is
also 1 when they cannot be compared; then stderr says why and stdout is empty.`,
	}
	r := p.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		result, err := r.call(cmd.Context(), "diff", map[string]string{"master": args[0]})
		if err != nil {
			return err
		}
		var d crdtstore.Diff
		if err := decodeAll(result, &d); err != nil {
			return err
		}
		if r.json {
			err = r.printJSON(result)
		} else {
			r.printDiff(d)
		}
		if err == nil && !d.Equal {
			err = errDiffer
		}
		return err
	}
	return cmd
}

func (r *remote) printDiff(d crdtstore.Diff) {
	if len(d.Nodes) > 0 {
		t := newTable(r.out, "NODE", "FIELDS")
		for _, n := range d.Nodes {
			t.row(n.NodeID, strings.Join(n.Fields, ", "))
		}
		t.flush()
		fmt.Fprintln(r.out)
	}
	total := max(d.Total, len(d.Nodes))
	verdict := "yes"
	switch {
	case d.Equal:
	case total > len(d.Nodes):
		verdict = fmt.Sprintf("no, %d nodes differ, %d are shown", total, len(d.Nodes))
	case total == 1:
		verdict = "no, 1 node differs"
	default:
		verdict = fmt.Sprintf("no, %d nodes differ", total)
	}
	t := newTable(r.out)
	t.row("equal", verdict)
	t.row("digest", d.Digest.Self)
	t.row("other", d.Digest.Other)
	t.flush()
}
