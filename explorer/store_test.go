package explorer

import (
	"testing"
	"time"
)

// What means the same is told in the same way, and what does not, in another.
func TestSharedSettings(t *testing.T) {
	base := Config{
		HeartbeatInterval: 10 * time.Second,
		Aliases:           map[string]string{"ExplorerService.beat": "node_heartbeat", "hello": "ExplorerService.register_node"},
		ProxyMethods:      []string{"b", "a"},
	}
	same := base
	same.HeartbeatInterval = 10_000 * time.Millisecond
	same.Aliases = map[string]string{"hello": "register_node", "beat": "node_heartbeat"}
	same.ProxyMethods = []string{"a", "b", "a"}
	for name, value := range base.sharedSettings() {
		if got := same.sharedSettings()[name]; got != value || len(value) > 64 {
			t.Errorf("%s is told as %q and as %q", name, value, got)
		}
	}
	for name, other := range map[string]Config{
		"heartbeat-interval": {HeartbeatInterval: time.Second, Aliases: base.Aliases, ProxyMethods: base.ProxyMethods},
		"aliases":            {HeartbeatInterval: base.HeartbeatInterval, Aliases: map[string]string{"beat": "node_heartbeats", "hello": "register_node"}, ProxyMethods: base.ProxyMethods},
		"proxy-methods":      {HeartbeatInterval: base.HeartbeatInterval, Aliases: base.Aliases},
	} {
		for setting, value := range base.sharedSettings() {
			if got := other.sharedSettings()[setting]; (got != value) != (setting == name) {
				t.Errorf("another %s: %s is told as %q, and was %q", name, setting, got, value)
			}
		}
	}
}
