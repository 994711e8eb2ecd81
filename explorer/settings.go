package explorer

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// sharedSettings are the settings that should be the same on all masters, beside those
// that the store compares by itself. Lists are told by their number and a digest.
func (c *Config) sharedSettings() map[string]string {
	var aliases []string
	for _, name := range slices.Sorted(maps.Keys(c.Aliases)) {
		aliases = append(aliases, bareName(name)+"="+bareName(c.Aliases[name]))
	}
	proxied := slices.Sorted(slices.Values(c.ProxyMethods))
	return map[string]string{
		"heartbeat-interval": c.HeartbeatInterval.String(),
		"aliases":            summary(aliases),
		"proxy-methods":      summary(slices.Compact(proxied)),
	}
}

// summary tells lists apart in few bytes.
func summary(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	digest := sha256.Sum256([]byte(strings.Join(list, "\n")))
	return fmt.Sprintf("%d (digest %x)", len(list), digest[:4])
}
