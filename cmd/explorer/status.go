package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
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
	Health   json.RawMessage `json:"health"`
	Stats    json.RawMessage `json:"stats"`
	Masters  json.RawMessage `json:"masters"`
}

func (p *program) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Sum up what a master knows",
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
		var notWell error
		if _, o.Health, notWell = r.health(cmd.Context(), c); o.Health == nil {
			return notWell
		}
		o.Endpoint = c.Endpoint().String()
		if r.json {
			if err := r.printJSON(o); err != nil {
				return err
			}
			return notWell
		}
		var stats crdtstore.Stats
		var masters explorer.MastersAnswer
		if err := decodeAll(o.Stats, &stats, o.Masters, &masters); err != nil {
			return err
		}
		r.printStatus(o.Endpoint, notWell, stats, masters)
		return notWell
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

func (r *remote) printStatus(endpoint string, notWell error, s crdtstore.Stats, m explorer.MastersAnswer) {
	t := newTable(r.out)
	for _, one := range m.Masters {
		if one.ID == m.Self {
			t.row("master", fmt.Sprintf("%s, version %s, at %s", one.Name, one.Version, endpoint))
			t.row("id", one.ID)
		}
	}
	health := "ok"
	if notWell != nil {
		health = notWell.Error()
	}
	t.row("health", health)
	if s.Joining != nil {
		t.row("joining", fmt.Sprintf("%d of %d nodes are here", s.Joining.Nodes, s.Joining.Of))
	}
	if p := s.Preservation; p != nil {
		t.row("preserving", fmt.Sprintf("%d of %d nodes are silent; suspect rather than offline until %s", p.Late, p.Of, p.EndsBy.Local().Format(time.TimeOnly)))
	}
	nodes := fmt.Sprintf("%d online, %d suspect, %d offline", s.Nodes.Online, s.Nodes.Suspect, s.Nodes.Offline)
	if s.Nodes.Drained > 0 {
		nodes += fmt.Sprintf("; %d drained", s.Nodes.Drained)
	}
	t.row("nodes", fmt.Sprintf("%d: %s", s.Nodes.Total, nodes))
	t.row("free", fmt.Sprintf("%s of %s cores, %s of %s memory, %s of %s SSD, %s of %s HDD, %d of %d slices",
		number(s.Free.CRU), number(s.Total.CRU), size(s.Free.MRU), size(s.Total.MRU),
		size(s.Free.SRU), size(s.Total.SRU), size(s.Free.HRU), size(s.Total.HRU), s.Slices.Free, s.Slices.Total))
	t.row("VMs", counts(s.VMs.Total, s.VMs.ByState))
	masters := counts(len(m.Masters), s.Masters)
	if len(m.Masters) > 1 {
		if s.Convergence.InSync {
			masters += "; in sync"
		} else {
			masters += fmt.Sprintf("; not in sync, %ss behind", number(s.Convergence.LagS))
		}
	}
	t.row("masters", masters)
	for _, one := range s.Convergence.Splits {
		t.row("split", splitText(one))
	}
	for _, one := range m.Masters {
		if one.Deaf {
			t.row("deaf", one.Name+" "+one.Reason)
		}
		if one.Cause == crdtstore.CauseCollision {
			t.row("identity", one.Name+": "+one.Reason)
		}
	}
	h := s.History
	disk := size(h.Bytes)
	if h.Live > 0 {
		disk += fmt.Sprintf(", %.1f times the %s", float64(h.Bytes)/float64(h.Live), size(h.Live))
	}
	disk += fmt.Sprintf(" of %d records: epoch %d with %d writes", h.Records, h.Epoch, h.Entries)
	if h.Old > 0 {
		disk += fmt.Sprintf("; %d older not deleted yet", h.Old)
	}
	t.row("disk", disk)
	t.flush()
}

// splitText says what is known of a split.
func splitText(s crdtstore.Split) string {
	since := fmt.Sprintf("since %s (%s)", s.Since.Local().Format(time.DateTime), ago(s.Since))
	changed := fmt.Sprintf("%d nodes", s.Nodes)
	if s.Nodes == 1 {
		changed = "1 node"
	}
	if !s.Unreachable {
		return fmt.Sprintf("%s holds something else %s, in %s; explorer diff shows what", s.Name, since, changed)
	}
	text := fmt.Sprintf("%s cannot be reached %s, what it holds is unknown; %s changed here since", s.Name, since, changed)
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
				if one.Status == crdtstore.MasterSelf {
					sync, seen = "", ""
				}
				if one.ClockSkewS >= 1 || one.ClockSkewS <= -1 {
					clock = fmt.Sprintf("%+.0fs", one.ClockSkewS)
				}
				status := string(one.Status)
				if one.Deaf {
					status += ", deaf"
				}
				t.row(one.Name, status, one.Version, fmt.Sprint(one.Nodes), fmt.Sprint(one.Hears), sync, fmt.Sprint(one.Differs),
					rtt, clock, seen, strings.Join(one.RPCURLs, ","), one.ID)
			}
			t.flush()
			for _, one := range m.Masters {
				if one.Reason != "" {
					fmt.Fprintf(r.out, "%s %s\n", printable(one.Name), printable(one.Reason))
				}
			}
		})
	}
	return cmd
}
