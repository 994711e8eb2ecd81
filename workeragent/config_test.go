package workeragent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func TestDefaultConfigLacksOnlyExplorers(t *testing.T) {
	t.Setenv("HOME", "/home/me")
	t.Setenv("HERO_SOCKET_DIR", "")
	_, err := DefaultConfig().resolve()
	var f *record.FieldError
	if !errors.As(err, &f) || f.Field != "explorers" {
		t.Errorf("error %v", err)
	}
	cfg := DefaultConfig()
	cfg.Explorers = []string{"host"}
	cfg, err = cfg.resolve()
	if err != nil {
		t.Fatal(err)
	}
	const sock = "unix:///home/me/hero/var/sockets/hero_compute/rpc.sock"
	if cfg.Compute != sock || cfg.AdvertiseCompute != sock || cfg.DataDir != "/home/me/hero/var/hero_explorer_agent" {
		t.Errorf("%+v", cfg)
	}
	t.Setenv("HERO_SOCKET_DIR", "/run/hero")
	if path, _ := ExpandPath("$HERO_SOCKET_DIR/x"); path != "/run/hero/x" {
		t.Errorf("expanded to %s", path)
	}
}

func TestConfigIsChecked(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		field string
		says  string
		set   func(*Config)
	}{
		{"data-dir", "empty", func(c *Config) { c.DataDir = "" }},
		{"explorers", "empty", func(c *Config) { c.Explorers = nil }},
		{"explorers", "empty entry", func(c *Config) { c.Explorers = []string{"a", " "} }},
		{"explorers", "a TCP port", func(c *Config) { c.Explorers = []string{"/ip4/10.0.0.1"} }},
		{"explorers", "cannot be read", func(c *Config) { c.Explorers = []string{"/dns4/x/tcp/9005/p2p/12D3KooW"} }},
		{"explorers", "cannot be read", func(c *Config) { c.Explorers = []string{"/ip4/10.0.0.256/tcp/9005/p2p/" + idA} }},
		{"explorers", "a TCP port", func(c *Config) { c.Explorers = []string{"/ip4/10.0.0.1/p2p/" + idA} }},
		{"explorers", "a TCP port", func(c *Config) { c.Explorers = []string{"/ip4/10.0.0.1/udp/9005/quic-v1/p2p/" + idA} }},
		{"explorers", "a TCP port", func(c *Config) {
			c.Explorers = []string{"/ip4/10.0.0.1/tcp/9005/p2p/" + idA + "/p2p-circuit/p2p/" + idB}
		}},
		{"explorers", "unix:///run/x.sock", func(c *Config) { c.Explorers = []string{"/run/x.sock"} }},
		{"explorers", "", func(c *Config) { c.Explorers = []string{"ftp://x"} }},
		{"explorers", "", func(c *Config) { c.Explorers = []string{"host:99999"} }},
		{"node-id", "character", func(c *Config) { c.NodeID = "a b" }},
		{"compute", "host:port", func(c *Config) { c.Compute = "/ip4/10.0.0.1/tcp/9005" }},
		{"compute", "", func(c *Config) { c.Compute = "/run/x.sock" }},
		{"advertise-compute", "", func(c *Config) { c.AdvertiseCompute = "gopher://x" }},
		{"labels.a", "256", func(c *Config) { c.Labels = map[string]string{"a": strings.Repeat("x", 257)} }},
		{"latitude", "-90", func(c *Config) { c.Location.Latitude = 91 }},
		{"heartbeat-interval", "between", func(c *Config) { c.HeartbeatInterval = 0 }},
		{"heartbeat-interval", "between", func(c *Config) { c.HeartbeatInterval = 25 * time.Hour }},
		{"compute-poll", "100ms", func(c *Config) { c.ComputePoll = time.Millisecond }},
		{"compute-grace", "negative", func(c *Config) { c.ComputeGrace = -1 }},
		{"token-file", "both", func(c *Config) { c.Token, c.TokenFile = "x", "y" }},
		{"token-file", "cannot be read", func(c *Config) { c.TokenFile = empty + "2" }},
		{"token-file", "is empty", func(c *Config) { c.TokenFile = empty }},
	} {
		cfg := testConfig(t, "host:1")
		c.set(&cfg)
		_, err := New(cfg, nil)
		var f *record.FieldError
		if !errors.As(err, &f) || f.Field != c.field || !strings.Contains(f.Problem, c.says) {
			t.Errorf("error %v, want one about %s that says %q", err, c.field, c.says)
		}
	}
}
