package epoch

import (
	"fmt"
	"strings"

	ds "github.com/ipfs/go-datastore"
)

// Writer is the name under which a master writes from one opening of its history to
// the next; run tells these apart. What a master writes under one name dominates all
// that it has written under it before, and stands higher in the history: so it never
// matters that go-ds-crdt lets the greatest height prevail inside a key. Over a crash
// neither would be true, for the end of the history may be lost to the one who wrote
// it and not to others.
func Writer(master string, run uint32) string { return fmt.Sprintf("%s.%08x", master, run) }

// StateKey is the key of a node's state: /n<node>/<writer>. The letter keeps node
// ids such as ".." from meaning something in a path.
func StateKey(node, writer string) string { return "/n" + node + "/" + writer }

func stateKey(node, writer string) ds.Key { return ds.RawKey(StateKey(node, writer)) }

// SplitKey is the inverse of StateKey.
func SplitKey(key string) (node, writer string, ok bool) {
	rest, ok := strings.CutPrefix(key, "/n")
	if !ok {
		return "", "", false
	}
	node, writer, ok = strings.Cut(rest, "/")
	return node, writer, ok && node != "" && writer != "" && !strings.Contains(writer, "/")
}
