package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer"
)

// programVersion is what the linker set, else what Go knows.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// about is what version prints with --json.
type about struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	// Server is the health of the master at --addr, where that was given.
	Server any `json:"server,omitempty"`
}

func (p *program) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version; with --addr that of a master, too",
	}
	r := p.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		a := about{Version: programVersion(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
		if err := r.set.Load(r.env); err != nil {
			return err
		}
		server := ""
		if len(r.addrs) > 0 {
			c, err := r.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			h, raw, err := r.health(cmd.Context(), c)
			if raw == nil {
				return err
			}
			a.Server, server = raw, fmt.Sprintf("%s %s at %s\n", printable(h.Service), printable(h.Version), c.Endpoint())
		}
		if r.json {
			return r.printJSON(a)
		}
		fmt.Fprintf(r.out, "explorer %s (%s, %s/%s)\n%s", a.Version, a.Go, a.OS, a.Arch, server)
		return nil
	}
	return cmd
}

func (p *program) idCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "id",
		Short: "Print the id of a master, by which other masters know it",
	}
	r := p.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		result, err := r.call(cmd.Context(), "masters", nil)
		if err != nil {
			return err
		}
		var m explorer.MastersAnswer
		if err := decodeAll(result, &m); err != nil {
			return err
		}
		if r.json {
			name := ""
			for _, one := range m.Masters {
				if one.ID == m.Self {
					name = one.Name
				}
			}
			return r.printJSON(map[string]string{"id": m.Self, "name": name})
		}
		fmt.Fprintln(r.out, printable(m.Self))
		return nil
	}
	return cmd
}

func (p *program) openRPCCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "openrpc",
		Short: "Print the OpenRPC document of a master's API",
	}
	r := p.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		result, err := r.call(cmd.Context(), "rpc.discover", nil)
		if err != nil {
			return err
		}
		return r.printJSON(result) // it is JSON either way
	}
	return cmd
}
