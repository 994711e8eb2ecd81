package record

import (
	"maps"
	"strings"
	"time"
)

// Node is what a reader gets: the account of the node's owner, the operator's
// overrides, and what the masters observe of it right now.
type Node struct {
	NodeID string `json:"node_id"`
	Boot   uint64 `json:"boot"`
	Seq    uint64 `json:"seq"`
	Profile
	VMs       []VM   `json:"vms"`
	Usage     Usage  `json:"usage"`
	UptimeS   uint64 `json:"uptime_s"`
	PublicKey []byte `json:"public_key,omitempty"`

	Status Status `json:"status"`
	// Reason says why a node is suspect.
	Reason    string     `json:"reason,omitempty"`
	Drained   bool       `json:"drained"`
	RemovedAt *time.Time `json:"removed_at,omitempty"`
	LastSeen  time.Time  `json:"last_seen"`
	SeenBy    []Observer `json:"seen_by"`
	Tunnel    []string   `json:"tunnel"`
	Signed    bool       `json:"signed"`
	Conflict  *Conflict  `json:"conflict,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
}

// Conflict tells that several machines claim one node id.
type Conflict struct {
	Reason string          `json:"reason"`
	Since  time.Time       `json:"since"`
	Claims []ConflictClaim `json:"claims"`
}

// ConflictClaim is one of the claims in a conflict.
type ConflictClaim struct {
	PublicKey  []byte    `json:"public_key,omitempty"` // empty: unsigned
	Boot       uint64    `json:"boot"`
	Seq        uint64    `json:"seq"`
	Hostname   string    `json:"hostname"`
	SocketPath string    `json:"socket_path"`
	Since      time.Time `json:"since"`
	Shown      bool      `json:"shown"` // whether this claim is the node's record
}

// View returns the record part of a node: everything but what the pulse plane
// knows (Status, Reason, SeenBy, Tunnel, Usage, UptimeS). Labels that the
// operator set stand over those of the agent. A body that does not decode shows as
// empty: it has a field of a newer version, or a faulty master has written it.
func View(nodeID string, s State) Node {
	n := Node{NodeID: nodeID, VMs: []VM{}, SeenBy: []Observer{}, Tunnel: []string{}}
	owner, ok := s.Owner()
	if ok {
		n.fill(owner, func(boot uint64) bool { return s.hides(owner, boot) })
		n.Conflict = s.conflict(owner)
	} else if !s.Removal.IsZero() {
		if last := s.latestClaim(); last != nil {
			n.fill(*last, func(uint64) bool { return false })
		}
		at := fromMillis(s.Removal.Stamp.Wall)
		n.RemovedAt = &at
		n.UpdatedAt = later(n.UpdatedAt, at)
	}
	n.LastSeen = fromMillis(s.LastSeen)
	n.Labels = maps.Clone(n.Labels)
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	for _, w := range s.Overrides {
		n.UpdatedAt = later(n.UpdatedAt, fromMillis(w.Stamp.Wall))
		if w.Field == FieldDrain {
			n.Drained = w.Value != ""
		} else if name, ok := strings.CutPrefix(w.Field, FieldLabel); ok {
			if v, set := strings.CutPrefix(w.Value, "="); set {
				n.Labels[name] = v
			} else if w.Value == LabelUnset {
				delete(n.Labels, name)
			}
		}
	}
	return n
}

func (n *Node) fill(c Claim, hidden func(boot uint64) bool) {
	n.PublicKey = []byte(c.Key)
	n.Signed = c.Key != ""
	n.CreatedAt = fromMillis(c.First.Wall)
	v := c.Latest()
	n.Boot, n.Seq = v.Boot, v.Seq
	if !hidden(c.Profile.Version.Boot) {
		n.Profile, _ = DecodeProfile(c.Profile.Body)
		n.UpdatedAt = later(n.UpdatedAt, fromMillis(c.Profile.At))
	}
	if !hidden(c.VMs.Version.Boot) {
		vms, _ := DecodeVMs(c.VMs.Body)
		n.VMs = c.VMs.of(n.NodeID, vms)
		n.UpdatedAt = later(n.UpdatedAt, fromMillis(c.VMs.At))
	}
}

// of completes the VMs in the register of a node.
func (a Account) of(nodeID string, vms []VM) []VM {
	if len(vms) == 0 {
		return []VM{}
	}
	asOf := fromMillis(a.At).Format(time.RFC3339)
	for i := range vms {
		vms[i].NodeID, vms[i].AsOf = nodeID, asOf
	}
	return vms
}

// VMs returns the VMs in the view of a state, if there are any in it, without making
// the rest of the view.
func (s State) VMs(nodeID string) []VM {
	a, ok := s.vmList()
	if !ok {
		return nil
	}
	vms, _ := parseVMs(a.Body)
	return a.of(nodeID, vms)
}

// VMsVersion is the version of the account that lists the VMs in the view of a state; the
// zero version where there is none.
func (s State) VMsVersion() Version {
	a, _ := s.vmList()
	return a.Version
}

// SameVMs reports whether the views of two states have the same VMs, but for the time
// at which they were told.
func (s State) SameVMs(t State) bool {
	a, ok := s.vmList()
	b, also := t.vmList()
	return ok == also && a.Body == b.Body
}

// vmList is the account of VMs in the view of a state, if there is any.
func (s State) vmList() (Account, bool) {
	claim, ok := s.Owner()
	if ok && s.hides(claim, claim.VMs.Version.Boot) {
		return Account{}, false
	}
	if last := s.latestClaim(); !ok && last != nil && !s.Removal.IsZero() {
		claim = *last
	}
	return claim.VMs, true
}

func (s State) latestClaim() *Claim {
	var last *Claim
	for i := range s.Claims {
		c := &s.Claims[i]
		if c.isEmpty() {
			continue
		}
		if last == nil || last.Latest().Compare(c.Latest()) < 0 {
			last = c
		}
	}
	return last
}

// conflict lists the claims when more than one identity speaks for the node. An
// unsigned claim that a signed one of a later boot has replaced is the usual
// way of an agent that learns to sign, and no conflict.
func (s State) conflict(owner Claim) *Conflict {
	var claims []Claim
	for _, c := range s.Claims {
		if c.isEmpty() || s.Hides(c) {
			continue
		}
		if c.Key == "" && owner.Key != "" && c.Boot() <= owner.Boot() {
			continue
		}
		claims = append(claims, c)
	}
	if len(claims) < 2 {
		return nil
	}
	out := &Conflict{Reason: "several identities claim this node id"}
	for _, c := range claims {
		p, _ := DecodeProfile(c.Profile.Body)
		v, since := c.Latest(), fromMillis(c.First.Wall)
		out.Since = later(out.Since, since)
		out.Claims = append(out.Claims, ConflictClaim{
			PublicKey: []byte(c.Key), Boot: v.Boot, Seq: v.Seq,
			Hostname: p.Hostname, SocketPath: p.SocketPath,
			Since: since, Shown: c.Key == owner.Key,
		})
	}
	return out
}

// maxMillis is the end of the year 9999, beyond which there is no RFC 3339. A
// clock that is off by so much must not make a node impossible to show.
const maxMillis = 253_402_300_799_999

func fromMillis(ms int64) time.Time {
	if ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(min(ms, maxMillis)).UTC()
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
