package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/output"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent"
)

// status asks the running agent and prints what it says.
func (p *program) status(cmd *cobra.Command, _ []string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
	defer cancel()
	s, err := workeragent.FetchStatus(ctx, p.cfg.DataDir)
	if err != nil {
		return err
	}
	if p.json {
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}
	return printStatus(p.stdout, s, time.Now())
}

func printStatus(w io.Writer, s workeragent.Status, now time.Time) error {
	var t output.Table
	line := func(cells ...any) {
		row := make([]string, len(cells))
		for i, c := range cells {
			row[i] = fmt.Sprint(c)
		}
		t.Row(row...)
	}
	line("node", s.NodeID)
	if s.KeyID != s.NodeID {
		line("key", s.KeyID)
	}
	line("version", s.Version)
	line("running", "for "+ago(now, s.StartedAt))
	if a := s.Account; a != nil {
		line("capacity", fmt.Sprintf("%g cores, %s memory, %s SSD, %s HDD, %d slices",
			a.Total.CRU, size(a.Total.MRU), size(a.Total.SRU), size(a.Total.HRU), a.SlicesTotal))
		line("in use", fmt.Sprintf("%.1f cores, %s memory, %s SSD, %s HDD, %d slices",
			a.Usage.CRU, size(a.Usage.MRU), size(a.Usage.SRU), size(a.Usage.HRU), a.Usage.Slices))
		line("VMs", len(a.VMs))
		for _, text := range a.Trouble {
			line("trouble", text)
		}
	}
	compute := s.Compute.State
	if s.Compute.Address != "" {
		compute = s.Compute.Address + " is " + s.Compute.State
	}
	line("compute", compute)
	if len(s.Tunnels) > 0 {
		line("tunnels", "to "+strings.Join(masterNames(s), " and "))
	}
	if err := t.Flush(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	line("EXPLORER", "MASTER", "FROM", "STATE", "FOR", "LAST BEAT", "ERROR")
	for _, e := range s.Explorers {
		beat, trouble := "never", e.LastError
		if e.LastBeat != nil {
			beat = ago(now, *e.LastBeat) + " ago"
		}
		if e.State == workeragent.StateRegistered || e.State == workeragent.StateStandby {
			trouble = "" // overcome
		}
		master, from := cmp.Or(e.Name, e.Master, "?"), "config"
		if e.Learned {
			from = "learned"
		}
		line(e.Address, master, from, e.State, ago(now, e.Since), beat, trouble)
	}
	return t.Flush(w)
}

// ago is the time since then, in the unit that matters.
func ago(now, then time.Time) string {
	d := max(0, now.Sub(then))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// size is a number of bytes in binary units.
func size(bytes uint64) string {
	const units = "KMGTPE"
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	f, i := float64(bytes)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}

// masterNames are the masters that there are tunnels to.
func masterNames(s workeragent.Status) (names []string) {
	for _, id := range s.Tunnels {
		name := id
		for _, e := range s.Explorers {
			if e.Master == id && e.Name != "" {
				name = e.Name
			}
		}
		names = append(names, name)
	}
	return names
}
