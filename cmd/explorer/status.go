package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

// health is what /health answers.
type health struct {
	Status  string `json:"status"`
	Service string `json:"service"`
	Version string `json:"version"`
	Reason  string `json:"reason"`
}

func (p *program) healthCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Tell whether a master can serve; the exit code says it too",
	}
	r := p.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := r.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		h, raw, err := r.health(cmd.Context(), c)
		if raw == nil {
			return err
		}
		if r.json {
			if err := r.printJSON(raw); err != nil {
				return err
			}
		} else if err == nil {
			fmt.Fprintf(r.out, "%s: %s %s at %s\n", printable(h.Status), printable(h.Service), printable(h.Version), c.Endpoint())
		}
		return err
	}
	return cmd
}

// health asks a master for its health. What it answered is returned beside an
// error that says it is not well.
func (r *remote) health(ctx context.Context, c *client.Client) (h health, raw json.RawMessage, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.limit())
	defer cancel()
	resp, err := c.Get(ctx, "/health", nil)
	if err != nil {
		return h, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return h, nil, fmt.Errorf("%s broke off: %w", c.Endpoint(), err)
	}
	if err := json.Unmarshal(body, &h); err != nil || h.Status == "" {
		return h, nil, fmt.Errorf("%s answered /health with HTTP status %d and no health; is it a master?", c.Endpoint(), resp.StatusCode)
	}
	if resp.StatusCode != http.StatusOK {
		return h, body, fmt.Errorf("%s is %s: %s", c.Endpoint(), h.Status, h.Reason)
	}
	return h, body, nil
}

// overview is what status prints with --json.
type overview struct {
	Endpoint string          `json:"endpoint"`
	Well     bool            `json:"well"` // there are no problems
	Problems []problem       `json:"problems"`
	Health   json.RawMessage `json:"health"`
	Stats    json.RawMessage `json:"stats"`
	Masters  json.RawMessage `json:"masters"`
}

// errNotWell sets the exit code; all there is to say was said.
var errNotWell = errors.New("not all is well")

func (p *program) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell whether all is well, and sum up what a master knows",
		Long: `Tell whether all is well with a master and with those that it knows, and sum up the grid.
What is not well comes first, one problem a line, with what to do about it.

The exit code is 0 when all is well, and 1 when anything is not: the master cannot serve, a
master is down or was never met, masters hold different records, hear different nodes or
have different settings, a clock is wrong, an identity is used twice, a node id is claimed
by several machines, or much of the grid is silent. It is also 1 when no master answers; then
stdout is empty. Nodes that are offline are counted, and are no problem of the masters.`,
	}
	r := p.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := r.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		var o overview
		// The stats come first: in a call, the client finds a master that is
		// well. A master that is not still says of itself what it can.
		if o.Stats, err = r.callOn(cmd.Context(), c, "stats", nil); err != nil {
			return err
		}
		if o.Masters, err = r.callOn(cmd.Context(), c, "masters", nil); err != nil {
			return err
		}
		h, raw, notWell := r.health(cmd.Context(), c)
		if raw == nil {
			return notWell
		}
		var stats crdtstore.Stats
		var masters explorer.MastersAnswer
		if err := decodeAll(o.Stats, &stats, o.Masters, &masters); err != nil {
			return err
		}
		o.Endpoint, o.Health = c.Endpoint().String(), raw
		o.Problems = problems(notWell, h.Reason, stats, masters)
		o.Well = len(o.Problems) == 0
		if r.json {
			err = r.printJSON(o)
		} else {
			r.printStatus(o, stats, masters)
		}
		if err == nil && !o.Well {
			err = errNotWell
		}
		return err
	}
	return cmd
}

// decodeAll decodes pairs of JSON and pointer.
func decodeAll(pairs ...any) error {
	for i := 0; i < len(pairs); i += 2 {
		if err := json.Unmarshal(pairs[i].(json.RawMessage), pairs[i+1]); err != nil {
			return fmt.Errorf("the master answered with something else than expected; is its version another one? %w", err)
		}
	}
	return nil
}

func (r *remote) printStatus(o overview, s crdtstore.Stats, m explorer.MastersAnswer) {
	if o.Well {
		fmt.Fprintln(r.out, "all is well")
	} else {
		fmt.Fprintf(r.out, "%s:\n", counted(len(o.Problems), "problem"))
	}
	for _, p := range o.Problems {
		fmt.Fprintf(r.out, "  %s -> %s\n", printable(strings.Map(oneLine, p.Text)), printable(p.Do))
	}
	fmt.Fprintln(r.out)
	t := newTable(r.out)
	for _, one := range m.Masters {
		if one.ID == m.Self {
			t.row("master", fmt.Sprintf("%s, version %s, at %s", one.Name, one.Version, o.Endpoint))
		}
	}
	masters := counts(len(m.Masters), s.Masters)
	switch {
	case len(m.Masters) == 1:
	case s.Convergence.InSync:
		masters += "; all that are alive hold the same records"
	default:
		masters += fmt.Sprintf("; records have differed for %ss", number(s.Convergence.LagS))
	}
	t.row("masters", masters)
	nodes := fmt.Sprintf("%d online, %d suspect, %d offline", s.Nodes.Online, s.Nodes.Suspect, s.Nodes.Offline)
	if s.Nodes.Drained > 0 {
		nodes += fmt.Sprintf("; %d drained", s.Nodes.Drained)
	}
	t.row("nodes", fmt.Sprintf("%d: %s", s.Nodes.Total, nodes))
	capacity := func(c record.Capacity, slices uint64) string { return capacityText(c, slices, s.Total) }
	t.row("capacity", capacity(s.Total, s.Slices.Total))
	t.row("free", capacity(s.Free, s.Slices.Free))
	for _, status := range []crdtstore.Status{crdtstore.Suspect, crdtstore.Offline} {
		if part := s.ByStatus[status]; part.Nodes > 0 {
			t.row(string(status), capacity(part.Capacity, part.Slices)+" of the capacity")
		}
	}
	t.row("VMs", counts(s.VMs.Total, s.VMs.ByState))
	t.row("disk", fmt.Sprintf("%s used by the records of %s", inBytes(s.History.Bytes), counted(s.History.Records, "node")))
	t.flush()
}

// capacityText lists what nodes have; disks of a kind that no node has are left out.
func capacityText(c record.Capacity, slices uint64, total record.Capacity) string {
	parts := []string{number(c.CRU) + " cores", inBytes(c.MRU) + " memory"}
	if total.SRU > 0 {
		parts = append(parts, inBytes(c.SRU)+" SSD")
	}
	if total.HRU > 0 {
		parts = append(parts, inBytes(c.HRU)+" HDD")
	}
	return strings.Join(append(parts, fmt.Sprintf("%d slices", slices)), ", ")
}

// splitText says what is known of a split.
func splitText(s stats.Split) string {
	since := fmt.Sprintf("since %s (%s)", s.Since.Local().Format(time.DateTime), ago(s.Since))
	if !s.Unreachable {
		return fmt.Sprintf("master %s holds other records %s, of %s", s.Name, since, counted(s.Nodes, "node"))
	}
	text := fmt.Sprintf("master %s cannot be reached %s", s.Name, since)
	if s.Nodes > 0 {
		text += fmt.Sprintf("; %s changed here", counted(s.Nodes, "node"))
	}
	if len(s.HeardBy) > 0 {
		text += "; other masters hear it"
	}
	return text
}

func counts(total int, by map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(by)) {
		if by[k] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", by[k], k))
		}
	}
	if len(parts) == 0 {
		return fmt.Sprint(total)
	}
	return fmt.Sprintf("%d: %s", total, strings.Join(parts, ", "))
}

func (p *program) mastersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "masters",
		Short: "List the masters as one of them sees them",
	}
	r := p.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		result, err := r.call(cmd.Context(), "masters", nil)
		if err != nil {
			return err
		}
		return show(r, result, func(m explorer.MastersAnswer) {
			t := newTable(r.out, "NAME", "STATUS", "VERSION", "NODES", "HEARS", "IN SYNC", "DIFFERS", "RTT", "CLOCK", "SEEN", "API", "ID")
			for _, one := range m.Masters {
				sync := "yes"
				if !one.InSync {
					sync = "no, " + number(one.LagS) + "s"
				}
				rtt, seen, clock := "", ago(one.LastSeen), ""
				if one.RTTms > 0 {
					rtt = number(one.RTTms) + "ms"
				}
				if one.Status == crdtstore.MasterSelf || one.Status == crdtstore.MasterNeverMet {
					sync, seen = "", ""
				}
				if one.ClockSkewS >= 1 || one.ClockSkewS <= -1 {
					clock = fmt.Sprintf("%+.0fs", one.ClockSkewS)
				}
				status := string(one.Status)
				if one.PartiallyConnected {
					status += ", partially connected"
				}
				if one.Cause != "" {
					status += ", " + string(one.Cause)
				}
				t.row(one.Name, status, one.Version, fmt.Sprint(one.Nodes), fmt.Sprint(one.Hears), sync, fmt.Sprint(one.Differs),
					rtt, clock, seen, strings.Join(one.RPCURLs, ","), one.ID)
			}
			t.flush()
			for _, one := range m.Masters {
				switch {
				case one.Status == crdtstore.MasterNeverMet && one.Reason != "":
					fmt.Fprintf(r.out, "%s was never met: %s (since %s)\n", printable(one.Name), printable(one.Reason), ago(one.Since))
				case one.Reason != "":
					fmt.Fprintf(r.out, "%s %s\n", printable(one.Name), printable(one.Reason))
				}
				for _, text := range one.SettingsDiffer {
					fmt.Fprintf(r.out, "%s has another setting than this master: %s\n", printable(one.Name), printable(text))
				}
			}
		})
	}
	return cmd
}
