package sim

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// agent speaks for one node.
type agent struct {
	node  string
	key   ed25519.PrivateKey // nil: it does not sign
	boot  uint64
	seq   uint64
	alive bool
}

// Kinds of accounts.
const (
	complete = iota // all fields
	partial         // labels and VMs are left out
	legacy          // without boot and seq
	cloned          // of the same version as the last, and unequal
	repeated        // sent twice, as by a caller that got no answer in time
)

// report has a node give an account of itself to one master.
func (w *world) report(a *agent, m *master, kind int) {
	if a.key != nil && (kind == partial || kind == legacy) {
		kind = complete // who signs says everything
	}
	if kind != cloned || a.seq == 0 {
		a.seq++
	}
	text := map[string]any{"node_id": a.node, "hostname": fmt.Sprintf("%d-%d", a.seq, kind)}
	if kind != legacy {
		text["boot"], text["seq"] = a.boot, a.seq
	}
	if kind != partial {
		text["labels"] = map[string]string{"zone": fmt.Sprint(a.seq % 3)}
		text["vms"] = []record.VM{{SID: "vm", Name: fmt.Sprint(a.seq), State: "running"}}
	}
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	var r record.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		panic(err)
	}
	if a.key != nil {
		r.Sign(a.key)
	}
	w.hand(a, m, r, kind)
	if kind == repeated {
		m.in(w.rnd.Int64N(20), func() { w.hand(a, m, r, kind) })
	}
}

// hand has a master take a report.
func (w *world) hand(a *agent, m *master, r record.Report, kind int) {
	known := m.replica.State(a.node)
	news, err := record.Accept(known, r, record.Acceptance{Now: m.replica.Wall()})
	if err != nil {
		w.tracef("%s refuses an account of %s: %v", m.id, a.node, err)
		return
	}
	if news.IsZero() {
		// The caller is told that the account is on disk.
		if f, err := m.replica.Begin(a.node, as(news)); err == nil {
			m.promise(f, fact{node: a.node, state: record.State{Generation: known.Generation, Claims: known.Claims}, by: m})
		}
		return
	}
	if !m.assert(a.node, news) {
		return
	}
	w.tracef("%s takes account %d.%d of %s", m.id, a.boot, a.seq, a.node)
	if kind == legacy {
		// The master has assigned a version, maybe that of a new boot.
		for _, c := range news.Claims {
			a.boot, a.seq = max(a.boot, c.Boot()), max(a.seq, c.Latest().Seq)
		}
	}
	before, after := record.View(a.node, known), record.View(a.node, m.replica.State(a.node))
	if kind == partial && before.RemovedAt == nil && after.Hostname == r.Hostname &&
		!(reflect.DeepEqual(before.Labels, after.Labels) && len(before.VMs) == len(after.VMs)) {
		w.fail("INV-2: an account of %s left out labels and VMs, and %v, %v became %v, %v", a.node, before.Labels, before.VMs, after.Labels, after.VMs)
	}
}

// keyOf returns one of a few keys.
func keyOf(i int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i)}, ed25519.SeedSize))
}

// claim has another machine claim the id of a node, with a key of its own. In some runs
// its report is as large as is taken.
func (w *world) claim(a *agent, m *master, key int) {
	r := record.Report{NodeID: a.node, Boot: uint64(1 + key), Seq: 1}
	r.Hostname = fmt.Sprintf("rival-%d", key)
	if w.plan.Large {
		r.VMs = slices.Clone(manyVMs)
	}
	r.Sign(keyOf(key))
	w.hand(a, m, r, complete)
}

// manyVMs are nearly as many bytes as a report may have.
var manyVMs = func() (vms []record.VM) {
	for i := range 250 {
		vms = append(vms, record.VM{SID: fmt.Sprintf("%0250d", i), Name: fmt.Sprintf("%0250d", i), State: fmt.Sprintf("%0250d", i), IP: fmt.Sprintf("%0250d", i)})
	}
	return vms
}()

// reboot starts a node again.
func (w *world) reboot(a *agent) {
	a.boot, a.seq, a.alive = max(a.boot+1, uint64(w.time().UnixMilli())), 0, true
}

// drain and label are an operator's overrides. Whoever is answered sees the override prevail,
// whatever the clocks of other masters say.
func (w *world) drain(a *agent, m *master, drained bool) {
	value := ""
	if drained {
		value = "1"
	}
	w.speak(a, m, record.FieldDrain, value)
	if s := m.replica.State(a.node); m.up && m.disk.failure == nil && !s.Removed() && !s.IsZero() && record.View(a.node, s).Drained != drained {
		w.fail("%s was told that drained is %v of %s, and shows the contrary", m.id, drained, a.node)
	}
}

func (w *world) speak(a *agent, m *master, field, value string) {
	known := m.replica.State(a.node)
	if known.IsZero() || known.Removed() {
		return
	}
	if m.assert(a.node, known.Set(m.replica.Wall(), m.id, "op", field, value)) {
		w.tracef("%s takes the override %s=%q about %s", m.id, field, value, a.node)
	}
}

func (w *world) remove(a *agent, m *master) {
	known := m.replica.State(a.node)
	if known.IsZero() || known.Removed() {
		return
	}
	if m.assert(a.node, known.Remove(m.replica.Wall(), m.id, "op", "")) {
		w.tracef("%s removes %s", m.id, a.node)
		if !m.replica.State(a.node).Removed() {
			w.fail("%s removed %s, and still shows it", m.id, a.node)
		}
	}
}
