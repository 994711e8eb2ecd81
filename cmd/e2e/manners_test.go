//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// odd is a part of a path that shells, URLs and formats take for something else.
const odd = "a b%20c ü世界"

// Programs that are told nothing by their environment, as under `env -i`, work, in paths
// that are hard to quote: an agent reports over the socket, the command line finds it there.
func TestOddPathsWithoutEnvironment(t *testing.T) {
	g := newGrid(t)
	dir := filepath.Join(g.dir, odd)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	explorer, agent := filepath.Join(g.bin, "explorer"), filepath.Join(g.bin, "workeragent")
	socket := filepath.Join(dir, "explorer.sock")
	nothing := []string{}
	m := start(t, "master", dir, nothing, explorer, "serve", "--data-dir", "data", // relative
		"--rpc-socket", socket, "--rpc-addr", freeAddr(t), "--ui-addr", freeAddr(t))
	api := unixEndpoint(socket)
	eventually(t, 20*time.Second, func() error { m.mustRun(); return api.call("stats", nil, nil) })
	if _, err := os.Stat(filepath.Join(dir, "data", "identity.key")); err != nil {
		t.Error("a relative data directory is not below where the program was started:", err)
	}
	a := start(t, "agent", dir, nothing, agent, "run", "--node-id", "odd", "--data-dir", filepath.Join(dir, "agent"),
		"--compute", "unix://"+filepath.Join(dir, "compute.sock"), "--explorers", "unix://"+socket)
	eventually(t, 20*time.Second, func() error {
		a.mustRun()
		out, code := command(t, dir, nothing, explorer, "nodes", "--addr", "unix://"+socket)
		if code != 0 || !strings.Contains(out, "odd") {
			return errNotYet("explorer nodes ends with %d:\n%s", code, out)
		}
		return nil
	})
	if out, code := command(t, dir, nothing, agent, "status", "--data-dir", "agent"); code != 0 || !strings.Contains(out, "odd") {
		t.Errorf("workeragent status ends with %d:\n%s", code, out)
	}
	// The same directory by another name is not another one.
	if err := os.Symlink(filepath.Join(dir, "data"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, again := range []string{"link", "data/../data/.", filepath.Join(dir, "data")} {
		out, code := command(t, dir, nothing, explorer, "serve", "--data-dir", again,
			"--rpc-socket", filepath.Join(dir, "second.sock"), "--rpc-addr", freeAddr(t), "--ui-addr", "")
		if code != 1 || !strings.Contains(out, "in use") {
			t.Errorf("a second master in %s ends with %d:\n%s", again, code, out)
		}
	}
	// The defaults below a home directory do as well.
	home := []string{"HOME=" + filepath.Join(g.dir, odd, "home")}
	n := start(t, "at-home", dir, home, explorer, "serve", "--rpc-addr", freeAddr(t), "--ui-addr", "")
	eventually(t, 20*time.Second, func() error {
		n.mustRun()
		if out, code := command(t, dir, home, explorer, "health"); code != 0 {
			return errNotYet("explorer health ends with %d:\n%s", code, out)
		}
		return nil
	})
}

// SIGHUP has both programs read again what they can, and otherwise go on as they are.
func TestHangup(t *testing.T) {
	g := newGrid(t)
	config := filepath.Join(g.dir, "explorer.yaml")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(config, "log-level: info\n")
	m := g.newMaster("m", masterOptions{args: []string{"--config", config, "--auth", "all"}})
	m.run()
	eventually(t, 20*time.Second, func() error { m.mustRun(); return m.healthy() })
	token := func(name string) string {
		t.Helper()
		out, code := command(t, g.dir, g.env(), filepath.Join(g.bin, "explorer"), "token", "create", name, "--data-dir", m.dir, "--json")
		var made struct{ Token string }
		if code != 0 || json.Unmarshal([]byte(out), &made) != nil || made.Token == "" {
			t.Fatalf("explorer token create ends with %d: %s", code, out)
		}
		return made.Token
	}
	secret := filepath.Join(g.dir, "token")
	write(secret, "not the token of anybody\n")
	a := g.startAgent("n", agentOptions{args: []string{"--token-file", secret, "--heartbeat-interval", "1s"}}, m)
	logged := func(p *process, text string) error {
		log, err := os.ReadFile(p.log)
		if err == nil && !bytes.Contains(log, []byte(text)) {
			err = errNotYet("%s does not log %q yet:\n%s", p.name, text, log)
		}
		return err
	}
	hangup := func(p *process) {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, func() error { return logged(a.process, "token") }) // it is refused
	write(secret, token("n")+"\n")
	hangup(a.process)
	eventually(t, 5*time.Second, func() error { // at once, and not when it would have tried again
		a.mustRun()
		return logged(a.process, "registered")
	})
	socket, err := os.Stat(m.socket)
	if err != nil {
		t.Fatal(err)
	}
	write(config, "log-level: debug\n")
	hangup(m.process)
	eventually(t, 10*time.Second, func() error { m.mustRun(); return logged(m.process, "log_level=debug") })
	// What cannot be read changes nothing.
	write(config, "log-level: loud\n")
	hangup(m.process)
	eventually(t, 10*time.Second, func() error { m.mustRun(); return logged(m.process, "loud") })
	if now, err := os.Stat(m.socket); err != nil || !os.SameFile(socket, now) {
		t.Errorf("the socket is another one: %v", err)
	}
	if err := m.healthy(); err != nil {
		t.Error(err)
	}
	for i := range 20 { // any number, at any time
		hangup(m.process)
		hangup(a.process)
		if err := m.healthy(); err != nil {
			t.Fatal(fmt.Sprint("after ", i, " more: "), err)
		}
	}
	m.mustRun()
	a.mustRun()
}
