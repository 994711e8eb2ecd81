package explorer

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

func TestDefaultConfig(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("HERO_SOCKET_DIR", "")
	cfg, err := DefaultConfig().resolve()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.DataDir != home+"/hero/var/hero_explorer" || cfg.RPCSocket != home+"/hero/var/sockets/hero_compute/explorer_rpc.sock" {
		t.Error(cfg.DataDir, cfg.RPCSocket)
	}
	if cfg.RPCAddr != "127.0.0.1:9002" || cfg.UIAddr != "127.0.0.1:9001" || cfg.HeartbeatInterval != 10*time.Second ||
		cfg.OfflineAfter != 30*time.Second || cfg.Retention != 720*time.Hour || cfg.Auth != AuthAuto || cfg.Name == "" {
		t.Errorf("%+v", cfg)
	}
	if !cfg.alone() {
		t.Error("the default is no single master")
	}
	t.Setenv("HERO_SOCKET_DIR", "/run/hero")
	if p, err := ExpandPath(DefaultConfig().RPCSocket); err != nil || p != "/run/hero/hero_compute/explorer_rpc.sock" {
		t.Error(p, err)
	}
	for _, same := range []string{"", "/a/~", "a~", "~x/y", "$HERO_SOCKET_DIRS/x"} {
		if p, err := ExpandPath(same); p != same || err != nil {
			t.Errorf("%q became %q, %v", same, p, err)
		}
	}
}

func TestConfigNamesTheFlag(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flag   string
		change func(*Config)
	}{
		{"data-dir", func(c *Config) { c.DataDir = "" }},
		{"rpc-addr", func(c *Config) { c.RPCAddr = "9002" }},
		{"rpc-addr", func(c *Config) { c.RPCAddr = "127.0.0.1:x" }},
		{"rpc-addr", func(c *Config) { c.RPCAddr = "127.0.0.1:70000" }},
		{"rpc-socket", func(c *Config) { c.RPCSocket = "/" + strings.Repeat("x", 108) }},
		{"ui-addr", func(c *Config) { c.UIAddr = "off" }},
		{"mesh-addr", func(c *Config) { c.MeshAddr = "here" }},
		{"edge-addr", func(c *Config) { c.EdgeAddr = "here" }},
		{"peer-masters", func(c *Config) { c.PeerMasters = []string{"10.0.0.1", " "} }},
		{"advertise", func(c *Config) { c.Advertise = []string{"a b"} }},
		{"advertise", func(c *Config) { c.Advertise = []string{"rpc=ftp://x"} }},
		{"advertise", func(c *Config) { c.Advertise = []string{"host:0"} }},
		{"cluster-secret-file", func(c *Config) { c.ClusterSecret, c.ClusterSecretFile = "a", empty }},
		{"cluster-secret-file", func(c *Config) { c.ClusterSecretFile = empty }},
		{"cluster-secret-file", func(c *Config) { c.ClusterSecretFile = empty + "/none" }},
		{"auth", func(c *Config) { c.Auth = "maybe" }},
		{"heartbeat-interval", func(c *Config) { c.HeartbeatInterval = 0 }},
		{"offline-after", func(c *Config) { c.OfflineAfter = c.HeartbeatInterval }},
		{"retention", func(c *Config) { c.Retention = time.Second }},
		{"name", func(c *Config) { c.Name = "a\nb" }},
		{"aliases.x", func(c *Config) { c.Aliases = map[string]string{"x": "no_such"} }},
		{"aliases.stats", func(c *Config) { c.Aliases = map[string]string{"stats": "masters"} }},
		{"proxy-methods", func(c *Config) { c.ProxyMethods = []string{""} }},
	} {
		cfg := testConfig(t)
		c.change(&cfg)
		_, err := New(cfg, nil)
		var field *crdtstore.FieldError
		if !errors.As(err, &field) || field.Field != c.flag {
			t.Errorf("want an error about %s: %v", c.flag, err)
		}
	}
}

func TestClusterSecretFile(t *testing.T) {
	cfg := testConfig(t)
	cfg.ClusterSecretFile = filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(cfg.ClusterSecretFile, []byte("open sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := s.storeConfig(); c.Secret != "open sesame" {
		t.Errorf("%q", c.Secret)
	}
}

// A single master asks the store for nothing that would open a socket.
func TestSingleMaster(t *testing.T) {
	s, err := New(testConfig(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := s.storeConfig(); len(c.Peers)+len(c.Listen) > 0 || c.Secret != "" {
		t.Errorf("%+v", c)
	}
	cfg := testConfig(t)
	cfg.MeshAddr = "127.0.0.1:9004"
	cfg.PeerMasters = []string{"10.0.0.2"}
	if s, err = New(cfg, nil); err != nil {
		t.Fatal(err)
	}
	if c := s.storeConfig(); !slices.Equal(c.Listen, []string{"127.0.0.1:9004"}) || !slices.Equal(c.Peers, cfg.PeerMasters) {
		t.Errorf("%+v", c)
	}
}
