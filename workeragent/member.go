package workeragent

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Bounds on what is learned, so that a master that names nonsense costs little.
const (
	maxMasters   = 64
	maxAddrs     = 16  // of one master, and of one kind
	maxAddrBytes = 256 // bytes
	maxName      = 128 // bytes, of an id too
	maxList      = 1 << 20
)

// The statuses of a master that matter to an agent.
const (
	statusSelf  = "self"
	statusAlive = "alive"
	statusLeft  = "left"
)

// member is what is known of one master. The lock of the membership guards it.
type member struct {
	id, name string
	urls     []string  // of its API, as far as usable from here
	edges    []string  // for tunnels
	left     bool      // it has stopped on purpose
	named    time.Time // when an answer last named it
}

// take takes what was said of this master, and reports whether it was news.
func (m *member) take(w memberInfo, fromHere bool, now time.Time) bool {
	left := w.Status == statusLeft
	changed := m.left != left
	if m.left = left; left {
		return changed
	}
	m.named = now
	if name := clip(w.Name); name != m.name {
		m.name, changed = name, true
	}
	// Of a master that is away the others may have an old account.
	current := w.Status == statusSelf || w.Status == statusAlive
	for _, kind := range []struct {
		said  []string
		into  *[]string
		edges bool
	}{{w.RPCURLs, &m.urls, false}, {w.EdgeAddrs, &m.edges, true}} {
		addrs := usable(w.ID, kind.said, kind.edges, fromHere, *kind.into)
		if len(addrs) > 0 && (current || len(*kind.into) == 0) && !slices.Equal(addrs, *kind.into) {
			*kind.into, changed = addrs, true
		}
	}
	return changed
}

// memberInfo is what a master says of a master, itself or another.
type memberInfo struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Status    string   `json:"status"`
	RPCURLs   []string `json:"rpc_urls"`
	EdgeAddrs []string `json:"edge_addrs"`
}

// decodeMembers reads the masters in an answer. A list that makes no sense is none: a
// heartbeat that was taken has not failed for it.
func decodeMembers(list json.RawMessage) (infos []memberInfo) {
	if len(list) == 0 || len(list) > maxList || json.Unmarshal(list, &infos) != nil {
		return nil
	}
	if len(infos) > maxMasters {
		infos = infos[:maxMasters]
	}
	return slices.DeleteFunc(infos, func(w memberInfo) bool { return !validID(w.ID) })
}

func validID(id string) bool {
	return id != "" && len(id) <= maxName && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })
}

// usable returns which of the addresses that a master was said to have can be
// called from here: URLs or edge addresses. One on "this machine" means the machine
// of whoever said it, so it is taken from a master on this machine only, or kept
// where it is known.
func usable(id string, addrs []string, edges, fromHere bool, known []string) (out []string) {
	for _, addr := range addrs {
		if len(out) == maxAddrs {
			break
		}
		if len(addr) > maxAddrBytes {
			continue
		}
		p, err := parseEndpoint(addr)
		if err != nil || p.ep.Network == "unix" || (p.edge != "") != edges || edges && p.master != id {
			continue
		}
		if s := p.String(); !slices.Contains(out, s) && (!p.local || fromHere || slices.Contains(known, s)) {
			out = append(out, s)
		}
	}
	return out
}
