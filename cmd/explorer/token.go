package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/settings"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer"
)

func (p *program) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Manage the tokens that let callers from other machines administer",
		Long: `Manage the tokens that let callers from other machines administer nodes and
call VMs. Tokens belong to one master and are kept in its data directory, so this
works on the machine of that master, whether it runs or not.`,
	}
	dir := new(string)
	r := p.bind(cmd)
	r.set.Add(settings.Setting{Name: "data-dir", Env: "EXPLORER_DATA_DIR", Value: dir, Usage: "`directory` of the master (default as for serve)"})

	// run makes a command of a function that gets the data directory.
	run := func(f func(dir string, args []string) error) func(*cobra.Command, []string) error {
		return func(_ *cobra.Command, args []string) error {
			if err := r.set.Load(p.env); err != nil {
				return err
			}
			if *dir == "" {
				local, err := p.localMaster()
				if err != nil {
					return err
				}
				*dir = local.cfg.DataDir
			}
			if len(r.addrs) > 0 && r.set.Source("addr") == settings.FromFlag {
				fmt.Fprintf(p.err, "note: --addr is not used here; tokens are kept in %s\n", *dir)
			}
			err := f(*dir, args)
			var field *crdtstore.FieldError
			if errors.As(err, &field) {
				return &settings.UsageError{Err: err}
			}
			return err
		}
	}
	list := run(func(dir string, _ []string) error { return r.listTokens(dir) })
	cmd.RunE = list
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List the tokens (what happens without a command, too)", RunE: list},
		&cobra.Command{
			Use: "create NAME", Short: "Create a token and print it, this once", Args: needs("a NAME"),
			RunE: run(func(dir string, args []string) error { return r.createToken(dir, args[0]) }),
		},
		&cobra.Command{
			Use: "revoke NAME|ID", Short: "Revoke a token", Args: needs("the NAME or ID of a token"),
			RunE: run(func(dir string, args []string) error { return r.revokeToken(dir, args[0]) }),
		},
	)
	return cmd
}

func (r *remote) listTokens(dir string) error {
	tokens, err := explorer.ListTokens(dir)
	if err != nil {
		return err
	}
	if r.json {
		if tokens == nil {
			tokens = []explorer.Token{}
		}
		return r.printJSON(tokens)
	}
	t := newTable(r.out, "ID", "NAME", "CREATED")
	for _, one := range tokens {
		t.row(one.ID, one.Name, one.CreatedAt.Format(time.RFC3339))
	}
	t.flush()
	return nil
}

func (r *remote) createToken(dir, name string) error {
	token, secret, err := explorer.CreateToken(dir, name)
	if err != nil {
		return err
	}
	if r.json {
		return r.printJSON(struct {
			explorer.Token
			Secret string `json:"token"`
		}{token, secret})
	}
	// The token alone on stdout, so that it can go into a file.
	fmt.Fprintln(r.out, secret)
	fmt.Fprintf(r.err, "Token %s (%s) works now. It is not shown again.\n", printable(token.Name), token.ID)
	return nil
}

func (r *remote) revokeToken(dir, idOrName string) error {
	token, err := explorer.RevokeToken(dir, idOrName)
	if err != nil {
		return err
	}
	if r.json {
		return r.printJSON(token)
	}
	fmt.Fprintf(r.out, "token %s (%s) is revoked\n", printable(token.Name), token.ID)
	return nil
}
