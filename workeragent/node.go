package workeragent

import (
	"crypto/ed25519"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent/internal/host"
)

// node is what this agent knows of its node. Those who watch the machine and
// the VMs write into it; the links to the explorers read from it without a lock.
type node struct {
	id   string
	key  ed25519.PrivateKey
	boot atomic.Uint64
	next func() uint64 // chooses a greater boot number
	seq  atomic.Uint64 // the last one given out

	account atomic.Pointer[record.Report] // nil before open
	vitals  atomic.Pointer[vitals]

	mu      sync.Mutex // guards what follows
	opened  bool
	profile record.Profile
	figures host.Figures
	vms     []record.VM
	wrong   map[string]string // what is wrong with the machine, by what it is about
	links   []chan struct{}
}

// vitals are the figures that travel with heartbeats.
type vitals struct {
	usage   record.Usage
	uptimeS uint64
	at      time.Time // when uptimeS was read
}

// beat is the parameters of node_heartbeat.
type beat struct {
	NodeID  string       `json:"node_id"`
	Boot    uint64       `json:"boot"`
	Seq     uint64       `json:"seq"`
	Usage   record.Usage `json:"usage"`
	UptimeS uint64       `json:"uptime_s"`
}

// newNode makes a node of which nothing is said yet. base has the parts of the
// profile that configuration decides.
func newNode(id string, key ed25519.PrivateKey, boot uint64, base record.Profile) *node {
	n := &node{id: id, key: key, profile: base, vms: []record.VM{}, wrong: map[string]string{}}
	n.boot.Store(boot)
	if n.profile.Labels == nil {
		n.profile.Labels = map[string]string{}
	}
	n.vitals.Store(&vitals{at: time.Now()})
	return n
}

// subscribe returns a channel that holds a token whenever the account has
// changed since it was last received from.
func (n *node) subscribe() <-chan struct{} {
	c := make(chan struct{}, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links = append(n.links, c)
	return c
}

// unsubscribe ends a subscription.
func (n *node) unsubscribe(c <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links = slices.DeleteFunc(n.links, func(other chan struct{}) bool { return other == c })
}

// open makes the first account from what is known by now. Before it, changes
// make none: an account without capacity would be a lie that is soon corrected.
func (n *node) open() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opened = true
	n.update()
}

func (n *node) setFigures(f host.Figures) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.figures = f
	n.profile.Hostname = clip(f.Hostname)
	n.profile.MyceliumIP = f.MyceliumIP
	n.profile.Total = f.Total
	n.profile.SlicesTotal = host.SlicesTotal(f.Total.MRU)
	n.update()
}

// setVMs takes the VMs of the node, ordered by sid. They are not to be modified
// afterwards.
func (n *node) setVMs(vms []record.VM) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Equal(n.vms, vms) {
		n.vms = vms
		n.update()
	}
}

// setTrouble takes what is wrong with the machine about one thing; empty: nothing is.
func (n *node) setTrouble(about, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if text = clip(text); n.wrong[about] == text {
		return
	}
	n.wrong[about] = text
	if text == "" {
		delete(n.wrong, about)
	}
	n.profile.Trouble = slices.Sorted(maps.Values(n.wrong))
	n.update()
}

// trouble returns what setTrouble was given last.
func (n *node) trouble(about string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.wrong[about]
}

// update makes the vitals, and a new account if any field of the profile, or the VMs, have
// changed. The caller holds mu.
func (n *node) update() {
	v := &vitals{usage: n.figures.Usage, uptimeS: n.figures.UptimeS, at: time.Now()}
	if n.figures == (host.Figures{}) {
		v.uptimeS = 0
	}
	v.usage.Slices = host.SlicesUsed(n.vms, n.profile.SlicesTotal)
	n.vitals.Store(v)

	if !n.opened {
		return
	}
	if was := n.account.Load(); was != nil && reflect.DeepEqual(was.Profile, n.profile) && slices.Equal(was.VMs, n.vms) {
		return
	}
	n.notify()
}

// reboot begins to speak as a node that has started anew, if it still speaks as the
// given boot.
func (n *node) reboot(was uint64) {
	if n.boot.Load() != was {
		return
	}
	boot := n.next() // goes to the disk
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.boot.Load() == was {
		n.boot.Store(max(boot, was+1))
		n.notify()
	}
}

// notify makes a new account. The caller holds mu.
func (n *node) notify() {
	r := &record.Report{NodeID: n.id, Boot: n.boot.Load(), Seq: n.seq.Add(1), Profile: n.profile, VMs: n.vms}
	r.Sign(n.key)
	n.account.Store(r)
	for _, c := range n.links {
		signal(c)
	}
}

// report is the account of the given version with the vitals of this moment.
func (n *node) report(account *record.Report) record.Report {
	r := *account
	r.Usage, r.UptimeS = n.now()
	return r
}

// beat is the next heartbeat.
func (n *node) beat() beat {
	b := beat{NodeID: n.id, Boot: n.boot.Load(), Seq: n.seq.Add(1)}
	b.Usage, b.UptimeS = n.now()
	return b
}

func (n *node) now() (record.Usage, uint64) {
	v := n.vitals.Load()
	return v.usage, v.uptimeS + uint64(max(0, time.Since(v.at))/time.Second)
}

// clip cuts a text to what a report may hold.
func clip(s string) string {
	const most = 256 // bytes
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
