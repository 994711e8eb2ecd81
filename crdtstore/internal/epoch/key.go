package epoch

import (
	"strings"

	ds "github.com/ipfs/go-datastore"
)

// A key is /n<node>/<master>. The letter keeps node ids such as ".." from
// meaning something in a path.
func stateKey(node, master string) ds.Key { return ds.RawKey("/n" + node + "/" + master) }

// splitKey is the inverse of stateKey.
func splitKey(key string) (node, master string, ok bool) {
	rest, ok := strings.CutPrefix(key, "/n")
	if !ok {
		return "", "", false
	}
	node, master, ok = strings.Cut(rest, "/")
	return node, master, ok && node != "" && master != "" && !strings.Contains(master, "/")
}
