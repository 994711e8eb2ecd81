package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/settings"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

// remote is how a command asks a master. bind gives it flags.
type remote struct {
	*program
	set       *settings.Set
	addrs     []string
	json      bool
	token     string
	tokenFile string
	timeout   time.Duration
}

// bind adds the flags that every command has that asks a master, to the command
// and those below it.
func (p *program) bind(cmd *cobra.Command) *remote {
	r := &remote{program: p, timeout: 30 * time.Second}
	flags := cmd.PersistentFlags()
	flags.SortFlags = false
	r.set = settings.New(flags)
	r.set.Add([]settings.Setting{
		{Name: "addr", Env: "EXPLORER_ADDR", Value: &r.addrs, Usage: "masters to ask, the next one where one fails: unix:///path, tcp://host:port, http(s)://host:port or host:port (default the local socket, then 127.0.0.1:9002)"},
		{Name: "json", Env: "EXPLORER_JSON", Value: &r.json, Usage: "print JSON (default false)"},
		{Name: "token-file", Env: "EXPLORER_TOKEN_FILE", Value: &r.tokenFile, Usage: "`file` with a token, for masters that ask for one; or the token itself in $EXPLORER_TOKEN"},
		{Name: "token", Env: "EXPLORER_TOKEN", Value: &r.token, OnlyEnv: true},
		{Name: "timeout", Env: "EXPLORER_TIMEOUT", Value: &r.timeout, Usage: "how long the answer of one master may take"},
	}...)
	return r
}

// load takes the values that are not given by flags.
func (r *remote) load() error {
	if err := r.set.Load(r.env); err != nil {
		return err
	}
	if r.timeout <= 0 {
		return &settings.UsageError{Err: fmt.Errorf("%s: must be more than 0", r.set.Place("timeout"))}
	}
	if r.tokenFile != "" && r.set.Source("token-file") >= r.set.Source("token") {
		b, err := os.ReadFile(r.tokenFile)
		if err != nil {
			return &settings.UsageError{Err: fmt.Errorf("%s: %w", r.set.Place("token-file"), err)}
		}
		if r.token = strings.TrimSpace(string(b)); r.token == "" {
			return &settings.UsageError{Err: fmt.Errorf("%s: %s is empty", r.set.Place("token-file"), r.tokenFile)}
		}
	}
	if strings.ContainsFunc(r.token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return &settings.UsageError{Err: errors.New("the token holds characters that no token has")}
	}
	if len(r.addrs) > 0 {
		return nil
	}
	local, err := r.localMaster()
	if err != nil {
		return err
	}
	r.addrs, err = localAddrs(local.cfg)
	return err
}

// localMaster returns the settings that a master started from here would have.
func (p *program) localMaster() (*master, error) {
	m := newMaster(pflag.NewFlagSet("", pflag.ContinueOnError))
	return m, m.load(p.env)
}

// localAddrs returns where a master of this machine answers.
func localAddrs(cfg explorer.Config) ([]string, error) {
	var addrs []string
	if cfg.RPCSocket != "" {
		path, err := explorer.ExpandPath(cfg.RPCSocket)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(path, "/") {
			addrs = append(addrs, "unix://"+path)
		}
	}
	tcp := "127.0.0.1:9002"
	if host, port, err := net.SplitHostPort(cfg.RPCAddr); err == nil && port != "0" {
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		tcp = net.JoinHostPort(host, port)
	}
	return append(addrs, tcp), nil
}

// dial returns a client. The caller closes it.
func (r *remote) dial() (*client.Client, error) {
	if err := r.load(); err != nil {
		return nil, err
	}
	c, err := client.New(r.addrs, client.Options{
		Token: r.token, Timeout: r.timeout, UserAgent: "explorer/" + programVersion(),
	})
	if err != nil {
		return nil, &settings.UsageError{Err: fmt.Errorf("%s: %w", r.set.Place("addr"), err)}
	}
	return c, nil
}

// call calls one method and returns its result.
func (r *remote) call(ctx context.Context, method string, params any) (json.RawMessage, error) {
	c, err := r.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return r.callOn(ctx, c, method, params)
}

func (r *remote) callOn(ctx context.Context, c *client.Client, method string, params any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, r.limit())
	defer cancel()
	var result json.RawMessage
	err := c.Call(ctx, method, params, &result)
	return result, err
}

// limit is how long a call may take, so that the last of the masters has as much time
// as the first: the client goes on from one that is silent, or not there, after 3 s.
func (r *remote) limit() time.Duration {
	return r.timeout + time.Duration(max(len(r.addrs)-1, 0))*min(r.timeout, 3*time.Second)
}

// show prints a result: as it is with --json, else as the function makes it of
// the decoded value.
func show[T any](r *remote, result json.RawMessage, render func(T)) error {
	if r.json {
		return r.printJSON(result)
	}
	var v T
	if err := json.Unmarshal(result, &v); err != nil {
		return fmt.Errorf("the master answered with something else than expected; is its version another one? %w", err)
	}
	render(v)
	return nil
}

// printJSON prints JSON indented, its members in the order they have.
func (p *program) printJSON(v any) error {
	raw, ok := v.(json.RawMessage)
	if !ok {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return err
		}
		raw = b.Bytes()
	}
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(raw), "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := p.out.Write(b.Bytes())
	return err
}
