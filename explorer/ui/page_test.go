// Package ui_test drives the page in a real browser against a fixture server.
package ui_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

func aNode(id string) crdtstore.Node {
	n := crdtstore.Node{NodeID: id, Boot: 1, Seq: 1, Status: crdtstore.Online, SeenBy: []record.Observer{{Master: "12D3KooWself0000", AgeS: 1, Reachable: true}}}
	n.Hostname = "host-of-" + id
	n.Labels = map[string]string{"zone": "z1"}
	n.Total = record.Capacity{CRU: 8, MRU: 16 << 30, SRU: 100 << 30}
	n.Usage = record.Usage{CRU: 2, MRU: 4 << 30, SRU: 10 << 30}
	return n
}

func withVM(n crdtstore.Node, sid, state string) crdtstore.Node {
	n.VMs = append(n.VMs, crdtstore.VM{SID: sid, Name: "name-of-" + sid, NodeID: n.NodeID, State: state, CPU: 2, Memory: 1 << 30, IP: "10.64.0.1"})
	return n
}

func TestShowsAndFollows(t *testing.T) {
	f := startFixture(t)
	f.put(withVM(aNode("n1"), "vm-1", "running"))
	f.put(aNode("n2"))
	p := open(t, f)

	p.text(`#nodes tr[data-node-id="n1"][data-status="online"]`, "host-of-n1")
	p.text(`#nodes tr[data-node-id="n1"]`, "4 GiB / 16 GiB")
	p.text(`#nodes tr[data-node-id="n2"]`, "alpha") // who hears it, by name
	p.text(`#vms tr[data-vm-sid="vm-1"][data-status="running"]`, "10.64.0.1")
	p.text(`#masters tr[data-master-id="12D3KooWself0000"][data-status="self"]`, "alpha")
	p.text(`#live[data-status="live"]`, "alpha")
	p.text(`#totals [data-total="nodes"]`, "of 2")

	// A node on the page changes.
	changed := aNode("n2")
	changed.Status, changed.Reason = crdtstore.Suspect, "only master-x heard it"
	f.put(changed)
	p.text(`#nodes tr[data-node-id="n2"][data-status="suspect"]`, "only master-x heard it")
	p.text(`#totals [data-total="nodes"]`, "1 suspect")

	// A node comes, with a VM.
	f.put(withVM(aNode("n3"), "vm-3", "stopped"))
	p.until(`document.querySelector('#nodes tr[data-node-id="n3"]')`)
	p.until(`document.querySelector('#vms tr[data-vm-sid="vm-3"]')`)

	// A VM changes, and goes.
	f.set(func() { f.nodes["n3"] = withVM(aNode("n3"), "vm-3", "running") })
	f.send("vm", f.nodes["n3"].VMs[0])
	p.until(`document.querySelector('#vms tr[data-vm-sid="vm-3"][data-status="running"]')`)
	f.set(func() { f.nodes["n3"] = aNode("n3") })
	f.send("vm", crdtstore.VM{SID: "vm-3", NodeID: "n3", State: "deleted"})
	p.until(`!document.querySelector('#vms tr[data-vm-sid="vm-3"]')`)

	// A master comes.
	beta := crdtstore.Master{ID: "12D3KooWbeta", Name: "beta", Status: crdtstore.MasterAlive, UIURLs: []string{"http://192.0.2.1:9001"}}
	f.set(func() { f.masters = append(f.masters, beta) })
	f.send("master", beta)
	p.text(`#masters tr[data-master-id="12D3KooWbeta"]`, "beta")

	// A node is removed.
	now := time.Now()
	changed.RemovedAt = &now
	f.put(changed)
	p.until(`!document.querySelector('#nodes tr[data-node-id="n2"]')`)
}

// The page fits the screen, and ids can be read and copied whole, however short
// they are cut.
func TestFits(t *testing.T) {
	const id = "12D3KooWAlpha7QkXcPmZ1bTn4yVgJr3sDf8wEh2LuNo9iKpRa"
	f := startFixture(t)
	n := withVM(aNode(id), "vm-1", "running")
	n.Hostname = strings.Repeat("long-", 20)
	n.Location.City = strings.Repeat("x", 100)
	n.Labels[strings.Repeat("l", 100)] = strings.Repeat("v", 100)
	f.put(n)
	p := open(t, f)
	p.until(`document.querySelector('#nodes tbody tr') && document.querySelector('#vms tbody tr')`)
	for _, width := range []int64{320, 390, 768, 1000, 1280, 1920} {
		p.run(chromedp.EmulateViewport(width, 900))
		p.until(fmt.Sprintf(`innerWidth === %d`, width))
		if got := p.eval(`document.documentElement.scrollWidth`); got != float64(width) {
			t.Errorf("at a width of %d the page is %v wide", width, got)
		}
		if got := p.eval(fmt.Sprintf(`document.querySelector('#nodes tbody').innerText.includes(%q)`, id)); got != true {
			t.Errorf("at a width of %d the id is not there", width)
		}
	}
	p.run(chromedp.EmulateReset())
}

// What nodes and masters say is text, whatever it looks like.
func TestHostileText(t *testing.T) {
	const evil = `<img src=x onerror="window.owned=1"><script>window.owned=1</script>`
	f := startFixture(t)
	n := withVM(aNode("n1"), "vm-1", "running")
	n.Hostname, n.Version, n.SocketPath, n.Reason = evil, evil, evil, evil
	n.Location.City = evil
	n.Labels = map[string]string{evil: evil}
	n.VMs[0].Name, n.VMs[0].IP, n.VMs[0].State = evil, evil, evil
	n.Conflict = &record.Conflict{Reason: evil, Claims: []record.ConflictClaim{{Hostname: evil, SocketPath: evil}}}
	f.put(n)
	f.masters = append(f.masters, crdtstore.Master{
		ID: evil, Name: evil, Status: crdtstore.MasterAlive, Version: evil,
		UIURLs: []string{"javascript:window.owned=1", "data:text/html," + evil}, RPCURLs: []string{evil},
	})
	f.fail["drain_node"] = &jsonrpc.Error{Code: -33001, Message: evil, Data: map[string]any{"hint": evil}}

	p := open(t, f)
	p.text(`#nodes tr[data-node-id="n1"]`, evil)
	p.text(`#vms tr[data-vm-sid="vm-1"]`, evil)
	p.text(`#masters tbody`, evil)
	p.click(`#nodes tr[data-node-id="n1"] button`)
	p.text(`#node-facts`, evil)
	p.click(`#node-actions [data-action="drain"]`)
	p.text(`#node-dialog .failed`, evil)
	if p.eval(`window.owned`) != nil {
		t.Error("hostile text was run")
	}
	if got := p.eval(`document.querySelectorAll('main img, main script, dialog img, dialog script').length`); got != 0.0 {
		t.Errorf("hostile text became %v elements", got)
	}
	if got := p.eval(`[...document.querySelectorAll('#masters a')].length`); got != 0.0 {
		t.Errorf("%v hostile links", got)
	}
}

func TestOperatesNodes(t *testing.T) {
	f := startFixture(t)
	f.put(aNode("n1"))
	p := open(t, f)
	p.click(`#nodes tr[data-node-id="n1"] button`)

	p.click(`#node-actions [data-action="drain"]`)
	p.until(`document.querySelector('#nodes tr[data-node-id="n1"][data-drained]')`)
	if got := f.called("drain_node"); len(got) != 1 || got[0]["node_id"] != "n1" {
		t.Errorf("drain_node was called with %v", got)
	}
	p.click(`#node-actions [data-action="undrain"]`)
	p.until(`!document.querySelector('#nodes tr[data-node-id="n1"][data-drained]')`)

	p.fill(`#node-label-form [name="name"]`, "rack")
	p.fill(`#node-label-form [name="value"]`, "r7")
	p.click(`#node-label-form button`)
	p.text(`#node-labels`, "rack=r7")
	p.click(`#node-labels [data-label="zone"]`)
	p.until(`!document.querySelector('#node-labels').textContent.includes('zone')`)
	if got := fmt.Sprint(f.called("label_node")); got != "[map[labels:map[rack:r7] node_id:n1] map[labels:map[zone:<nil>] node_id:n1]]" {
		t.Errorf("label_node was called with %s", got)
	}

	f.set(func() {
		f.fail["drain_node"] = &jsonrpc.Error{Code: jsonrpc.CodeLimit, Message: "too often", Data: jsonrpc.ErrorData{Hint: "wait a second"}}
	})
	p.click(`#node-actions [data-action="drain"]`)
	p.text(`#node-dialog .failed`, "too often")
	p.text(`#node-dialog .failed`, "wait a second")
	p.text(`#node-dialog .failed`, "-32007")

	p.click(`#node-actions [data-action="remove"]`)
	p.fill(`#ask-fields [name="reason"]`, "sold")
	if len(f.called("remove_node")) != 0 {
		t.Error("remove_node was called without being confirmed")
	}
	p.click(`#ask-go`)
	p.until(`!document.querySelector('#nodes tr[data-node-id="n1"]')`)
	if got := fmt.Sprint(f.called("remove_node")); got != "[map[node_id:n1 reason:sold]]" {
		t.Errorf("remove_node was called with %s", got)
	}
}

func TestOperatesVMs(t *testing.T) {
	f := startFixture(t)
	f.put(withVM(aNode("n1"), "vm-1", "running"))
	p := open(t, f)

	f.set(func() {
		f.fail["stop_vm"] = &jsonrpc.Error{Code: -33001, Message: "VM not found", Data: map[string]any{"hint": "check the secret"}}
	})
	p.click(`#vms tr[data-vm-sid="vm-1"] [data-action="stop"]`)
	p.fill(`#ask-fields [name="secret"]`, "wrong")
	p.click(`#ask-go`)
	p.text(`#ask-dialog .failed`, "check the secret")
	f.set(func() { delete(f.fail, "stop_vm") })
	p.fill(`#ask-fields [name="secret"]`, "right")
	p.click(`#ask-go`)
	p.until(`!document.querySelector('#ask-dialog').open`)
	if got := fmt.Sprint(f.operations(t, "stop_vm")); got != "[map[node_id:n1 secret:wrong sid:vm-1] map[node_id:n1 secret:right sid:vm-1]]" {
		t.Errorf("stop_vm was called with %s", got)
	}
	p.until(`!document.body.innerHTML.includes('right"') && !document.querySelector('#ask-fields input')`) // the secret is gone

	p.click(`#vms tr[data-vm-sid="vm-1"] [data-action="open"]`)
	p.click(`#node-actions [data-action="deploy"]`)
	p.fill(`#ask-fields [name="name"]`, "web")
	p.fill(`#ask-fields [name="secret"]`, "s3")
	p.click(`#ask-go`)
	p.text(`#toasts`, "web is deployed")
	if got := fmt.Sprint(f.operations(t, "deploy_vm")); got != "[map[cpu_count:1 memory_mb:1024 name:web node_id:n1 secret:s3]]" {
		t.Errorf("deploy_vm was called with %s", got)
	}
}

// A change whose answer was lost is asked for again under its name, so that it is
// made once. Where no answer comes at all the page says so, and the same again is
// still the same change.
func TestRepeatsOperations(t *testing.T) {
	f := startFixture(t)
	f.put(withVM(aNode("n1"), "vm-1", "running"))
	p := open(t, f)
	do := func(action string) {
		p.click(`#vms tr[data-vm-sid="vm-1"] [data-action="` + action + `"]`)
		p.click(`#ask-go`)
	}
	const call, again = "map[node_id:n1 secret: sid:vm-1]", "map[node_id:n1 op_again:true secret: sid:vm-1]"

	f.set(func() { f.lose["stop_vm"] = 1 })
	do("stop")
	p.text(`#toasts`, "Stop name-of-vm-1: done")
	if got := fmt.Sprint(f.operations(t, "stop_vm")); got != "["+call+" "+again+"]" {
		t.Errorf("stop_vm was called with %s", got)
	}

	f.set(func() { f.lose["restart_vm"] = 5 })
	do("restart")
	p.text(`#ask-dialog .failed`, "it is not known whether this was done")
	p.text(`#ask-dialog .failed`, "does nothing twice")
	p.click(`#ask-go`)
	p.text(`#toasts`, "Restart name-of-vm-1: done")
	if got := fmt.Sprint(f.operations(t, "restart_vm")); got != "["+call+strings.Repeat(" "+again, 5)+"]" {
		t.Errorf("restart_vm was called with %s", got)
	}

	// A node that does not remember cannot tell, and is not asked again.
	f.set(func() {
		f.fail["delete_vm"] = &jsonrpc.Error{Code: jsonrpc.CodeOutcomeUnknown, Message: "sent and not answered", Data: jsonrpc.ErrorData{Hint: "look"}}
	})
	do("delete")
	p.text(`#ask-dialog .failed`, "Look at the VM before you do it again")
	if got := fmt.Sprint(f.operations(t, "delete_vm")); got != "["+call+"]" {
		t.Errorf("delete_vm was called with %s", got)
	}
	p.click(`#ask-dialog [data-action="close"]`)

	// One that was refused for now was not made, so it is no repetition.
	f.set(func() {
		delete(f.fail, "delete_vm")
		f.fail["stop_vm"] = &jsonrpc.Error{Code: jsonrpc.CodeLimit, Message: "too many calls", Data: jsonrpc.ErrorData{Retryable: true, Hint: "wait", By: jsonrpc.ByMaster}}
	})
	do("stop")
	p.text(`#ask-dialog .failed`, "too many calls")
	for _, given := range f.called("stop_vm")[2:] {
		if given["op_again"] != nil {
			t.Errorf("stop_vm was called with %v", given)
		}
	}
	p.click(`#ask-dialog [data-action="close"]`)

	// What the node itself answers is the answer, though masters have such codes, too.
	for _, code := range []int{jsonrpc.CodeNotFound, jsonrpc.CodeLimit, jsonrpc.CodeUnauthorized} {
		f.set(func() {
			f.calls, f.lose["restart_vm"] = nil, 1
			f.fail["restart_vm"] = &jsonrpc.Error{Code: code, Message: "the node says no", Data: jsonrpc.ErrorData{Retryable: true, Hint: "look there"}}
		})
		do("restart")
		p.text(`#ask-dialog .failed`, "look there")
		if got := fmt.Sprint(f.operations(t, "restart_vm")); got != "["+call+" "+again+"]" {
			t.Errorf("%d: restart_vm was called with %s", code, got)
		}
		p.click(`#ask-dialog [data-action="close"]`)
	}
}

// Two machines that claim one id are both shown, wherever the node is.
func TestShowsConflicts(t *testing.T) {
	f := startFixture(t)
	n := aNode("n1")
	since := time.Now().Add(-time.Hour)
	n.Conflict = &record.Conflict{Reason: "several identities claim this node id", Since: since, Claims: []record.ConflictClaim{
		{PublicKey: []byte("key of the one"), Boot: 5, Seq: 8, Hostname: "host-of-n1", SocketPath: "tcp://192.0.2.1:9003", Since: since.Add(-48 * time.Hour), Shown: true},
		{PublicKey: []byte("key of another"), Boot: 6, Seq: 2, Hostname: "copied-disk", SocketPath: "tcp://192.0.2.2:9003", Since: since},
	}}
	f.put(n)
	f.put(aNode("n2"))
	p := open(t, f)
	p.text(`#nodes tr[data-node-id="n1"] .badge[data-status="conflict"]`, "conflict")
	p.text(`#nodes tr[data-node-id="n1"] .status`, "claimed by host-of-n1 and copied-disk")
	p.click(`#nodes tr[data-node-id="n1"] button`)
	p.text(`#node-facts .conflict h3`, "2 machines claim this id")
	for i, want := range [][]string{
		{"host-of-n1", "tcp://192.0.2.1:9003", "a2V5IG9mIHRoZSBvbmU=", "2 d ago", "boot 5, report 8", "shown"},
		{"copied-disk", "tcp://192.0.2.2:9003", "a2V5IG9mIGFub3RoZXI=", "1 h ago", "boot 6, report 2"},
	} {
		for _, text := range want {
			p.text(fmt.Sprintf(`#node-facts .conflict tbody tr:nth-child(%d)`, i+1), text)
		}
	}
	if got := p.eval(`document.querySelectorAll('.conflict [data-shown]').length`); got != 1.0 {
		t.Errorf("%v claims are shown as the node's", got)
	}
	// Once it is settled nothing is left of it.
	n.Conflict = nil
	f.put(n)
	p.until(`!document.querySelector('.conflict, [data-status="conflict"]')`)
}

// What a node finds wrong with its machine is shown wherever the node is.
func TestShowsTrouble(t *testing.T) {
	f := startFixture(t)
	n := aNode("n1")
	n.Trouble = []string{"the disk is full", "<b>no fan</b>"}
	f.put(n)
	f.put(aNode("n2"))
	p := open(t, f)
	p.text(`#nodes tr[data-node-id="n1"] .badge[data-status="trouble"]`, "trouble")
	p.click(`#nodes tr[data-node-id="n1"] button`)
	p.text(`#node-facts .trouble li:nth-child(1)`, "the disk is full")
	p.text(`#node-facts .trouble li:nth-child(2)`, "<b>no fan</b>")
	if got := p.eval(`document.querySelectorAll('#nodes .badge[data-status="trouble"]').length`); got != 1.0 {
		t.Errorf("%v badges say trouble", got)
	}
	n.Trouble = nil
	f.put(n)
	p.until(`!document.querySelector('.trouble, [data-status="trouble"]')`)
}

// A master that is frozen keeps its connections open and says nothing. The page notices,
// and leads to the others.
func TestFrozenMaster(t *testing.T) {
	f := startFixture(t)
	f.masters = append(f.masters, crdtstore.Master{ID: "12D3KooWbeta", Name: "beta", Status: crdtstore.MasterAlive, UIURLs: []string{"http://192.0.2.1:9001/"}})
	p := open(t, f)
	p.until(`document.querySelector('#live[data-status="live"]')`)
	f.set(func() { f.frozen = true })
	p.text(`#notice`, "does not answer")
	p.until(`document.querySelector('#notice a')?.href === "http://192.0.2.1:9001/"`)
}

func TestReconnects(t *testing.T) {
	f := startFixture(t)
	f.masters = append(f.masters, crdtstore.Master{ID: "12D3KooWbeta", Name: "beta", Status: crdtstore.MasterAlive, UIURLs: []string{"http://192.0.2.1:9001/"}})
	f.put(aNode("n1"))
	p := open(t, f)
	p.until(`document.querySelector('#live[data-status="live"]')`)
	p.until(`document.querySelector('#nodes tr[data-node-id="n1"]')`)

	f.breakStreams(true)
	p.text(`#live[data-status="reconnecting"]`, "reconnecting")
	p.text(`#notice`, "does not answer")
	p.until(`document.querySelector('#notice a')?.href === "http://192.0.2.1:9001/"`)

	// What happens meanwhile is there when the stream is back, and another master
	// may be at its other end.
	f.set(func() {
		n := aNode("n1")
		n.Status = crdtstore.Offline
		f.nodes["n1"] = n
		f.nodes["n2"] = aNode("n2")
		f.masters[0].Status, f.masters[1].Status = crdtstore.MasterAlive, crdtstore.MasterSelf
		f.down = false
	})
	p.text(`#live[data-status="live"]`, "beta")
	p.until(`document.querySelector('#nodes tr[data-node-id="n1"][data-status="offline"]')`)
	p.until(`document.querySelector('#nodes tr[data-node-id="n2"]')`)
	p.until(`document.querySelector('#notice').hidden`)

	f.put(aNode("n2"))
	changed := aNode("n2")
	changed.Hostname = "renamed"
	f.put(changed)
	p.text(`#nodes tr[data-node-id="n2"]`, "renamed")
}

// A page is alive in the end, though a part of it did not come, or the stream did not begin.
func TestComesAliveInTheEnd(t *testing.T) {
	for name, trouble := range map[string]func(*fixture){
		"the script breaks off":     func(f *fixture) { f.cut["/app.js"] = 1 },
		"a module breaks off":       func(f *fixture) { f.cut["/list.js"] = 2 },
		"the stream does not begin": func(f *fixture) { f.hang = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			f := startFixture(t)
			f.put(aNode("n1"))
			trouble(f)
			open(t, f).until(`document.querySelector('#live[data-status="live"]')`)
		})
	}
}

func TestAsksForAToken(t *testing.T) {
	f := startFixture(t)
	f.put(aNode("n1"))
	f.token = "t0ken"
	p := open(t, f)
	p.until(`document.querySelector('#token-dialog').open`)
	p.fill(`#token`, "guess")
	p.click(`#token-form .primary`)
	p.until(`sessionStorage.length === 1 && document.querySelector('#token-dialog').open`) // asks again
	p.fill(`#token`, "t0ken")
	p.click(`#token-form .primary`)
	p.until(`document.querySelector('#nodes tr[data-node-id="n1"]')`)
	p.until(`document.querySelector('#live[data-status="live"]')`)

	// A call that needs one asks as well, and is repeated with it.
	f.set(func() { f.token = "other" })
	p.click(`#nodes tr[data-node-id="n1"] button`)
	p.fill(`#token`, "other")
	p.click(`#token-form .primary`)
	p.click(`#node-actions [data-action="drain"]`)
	p.awaitCall(f, "drain_node", nil)
}

// What is drawn anew while the mouse is down is clicked when it is let go, and
// text that is marked beyond the edge of a dialog does not close it.
func TestDrawsUnderThePressedMouse(t *testing.T) {
	f := startFixture(t)
	n := aNode("n1")
	f.put(n)
	p := open(t, f)
	const button = `#nodes tr[data-node-id="n1"] button`
	p.text(`#totals [data-total="nodes"]`, "of 1") // all is in its place
	at, ok := p.press(button)
	for ; !ok; at, ok = p.press(button) {
		p.release(point{})
	}
	n.Hostname, n.Usage.CRU = "renamed", 3
	f.put(n)
	p.text(button, "renamed")
	p.release(at)
	p.until(`document.querySelector('#node-dialog').open`)

	const field = `#node-label-form [name="value"]`
	p.fill(field, "r7")
	if _, ok := p.press(field); !ok {
		t.Fatal("the dialog does not keep still")
	}
	p.run(input.DispatchMouseEvent(input.MouseMoved, 1, 1).WithButton(input.Left))
	p.release(point{1, 1})
	if p.eval(`document.querySelector('#node-dialog').open`) != true {
		t.Error("the dialog is closed")
	}
	p.run(chromedp.MouseClickXY(1, 1))
	p.until(`!document.querySelector('#node-dialog').open`)
}

// countAnswers notes of which methods the page has had answers.
const countAnswers = `{
	const send = fetch;
	window.answers = new Set();
	window.fetch = async (url, options) => {
		const response = await send(url, options);
		const read = response.json.bind(response);
		response.json = async () => {
			const answer = await read();
			setTimeout(() => answers.add(JSON.parse(options.body).method)); // once the page has taken it
			return answer;
		};
		return response;
	};
}`

// What the server said before it told of a change does not undo the change,
// however late it comes.
func TestLateAnswers(t *testing.T) {
	f := startFixture(t)
	f.put(aNode("n1"))
	p := open(t, f)
	p.until(`document.querySelector('#live[data-status="live"]')`)
	p.click(`#nodes tr[data-node-id="n1"] button`)
	p.text(`#node-facts`, "online")

	p.eval(countAnswers)
	release := f.hold(t, "list_nodes", "get_node")
	for method, ask := range map[string]string{
		"list_nodes": `document.querySelector('#nodes-filter').requestSubmit()`,
		"get_node":   `dispatchEvent(new HashChangeEvent('hashchange'))`, // opens the node again
	} {
		before := len(f.called(method))
		p.eval(ask)
		p.retry(method, func() bool { return len(f.called(method)) > before })
	}
	changed := aNode("n1")
	changed.Hostname = "renamed"
	f.put(changed)
	p.text(`#nodes tr[data-node-id="n1"]`, "renamed")
	p.text(`#node-title`, "renamed")
	p.eval(`answers.clear()`)
	release()
	p.until(`answers.has('list_nodes') && answers.has('get_node')`)
	for _, selector := range []string{`#nodes tr[data-node-id="n1"]`, `#node-title`} {
		if got := p.eval(fmt.Sprintf(`document.querySelector(%q).innerText`, selector)); !strings.Contains(fmt.Sprint(got), "renamed") {
			t.Errorf("%s says %v", selector, got)
		}
	}
}

// Of many nodes the page holds one page, and however much happens, it asks the
// server about once a second.
func TestManyNodes(t *testing.T) {
	f := startFixture(t)
	for i := range 10_000 {
		n := aNode(fmt.Sprintf("n%05d", i))
		f.nodes[n.NodeID] = n
	}
	p := open(t, f)
	p.text(`#nodes-count`, "10,000")
	p.until(`document.querySelectorAll('#nodes tbody tr').length === 50`)

	began, before := time.Now(), len(f.called("stats"))
	for i := range 3_000 {
		f.put(aNode(fmt.Sprintf("n%05d", 100+i)))
		if i%100 == 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}
	changed := aNode("n00007")
	changed.Hostname = "renamed"
	f.put(changed)
	p.text(`#nodes tr[data-node-id="n00007"]`, "renamed")
	if calls, most := len(f.called("stats"))-before, int(time.Since(began)/time.Second)+3; calls > most {
		t.Errorf("%d calls of stats in %v, want at most %d", calls, time.Since(began), most)
	}

	p.click(`#nodes .pager [data-action="next"]`)
	p.until(`document.querySelector('#nodes tbody tr')?.dataset.nodeId === "n00050"`)
	p.click(`#nodes .pager [data-action="previous"]`)
	p.until(`document.querySelector('#nodes tbody tr')?.dataset.nodeId === "n00000"`)

	p.fill(`#nodes-q`, "n0999")
	p.text(`#nodes-count`, "10 match")
	p.eval(`{ const s = document.querySelector('#nodes-status'); s.value = 'offline'; s.dispatchEvent(new Event('input', {bubbles: true})); }`)
	p.text(`#nodes .empty`, "Nothing matches")
	p.awaitCall(f, "list_nodes", func(params map[string]any) bool {
		return params["q"] == "n0999" && params["status"] == "offline" && params["limit"] == 50.0
	})
	p.eval(`document.querySelector('#nodes-filter').reset()`)
	p.eval(`document.querySelector('#nodes-filter').requestSubmit()`)
	p.click(`#nodes th[data-sort="hostname"] button`)
	p.click(`#nodes th[data-sort="hostname"] button`)
	p.until(`document.querySelector('#nodes tbody tr')?.dataset.nodeId === "n09999"`)
	if got := p.eval(`document.querySelector('#nodes th[data-sort="hostname"]').ariaSort`); got != "descending" {
		t.Errorf("aria-sort is %v", got)
	}
}

// Masters that are apart and masters that nodes cannot reach are told of at the top of
// the page, as long as it is so.
func TestMastersApart(t *testing.T) {
	f := startFixture(t)
	p := open(t, f)
	p.until(`document.querySelector('#masters tr') && document.querySelector('#splits').hidden`)

	began := time.Now().Add(-4 * time.Minute)
	cedar := crdtstore.Master{ID: "12D3KooWcedar", Name: "cedar", Status: crdtstore.MasterAlive, PartiallyConnected: true, Reason: "hears 0 of the 1000 nodes that alpha hears",
		SettingsDiffer: []string{"offline-after: 3s there, 30s here"}}
	f.set(func() {
		f.masters = append(f.masters, cedar)
		f.silence = &stats.Preservation{Late: 400, Of: 1000, EndsBy: time.Now().Add(time.Minute)}
		f.splits = []stats.Split{
			{Master: "12D3KooWbirch", Name: "birch", Since: began, LagS: 240, Nodes: 12, Unreachable: true, HeardBy: []string{"12D3KooWcedar"}},
			{Master: "12D3KooWcedar", Name: "<b>cedar</b>", Since: began, LagS: 9, Nodes: 1},
		}
	})
	f.send("master", cedar)
	p.text(`#splits li[data-master-id="12D3KooWbirch"]`, "cannot be reached since")
	p.text(`#splits li[data-master-id="12D3KooWbirch"]`, "(4 min), and what it holds is unknown. 12 nodes changed here since. Other masters hear it.")
	p.text(`#splits li[data-master-id="12D3KooWcedar"][data-kind="split"]`, "<b>cedar</b> holds something else since")
	p.text(`#splits li[data-master-id="12D3KooWcedar"][data-kind="split"]`, "1 node differed")
	p.text(`#splits li[data-kind="preservation"]`, "400 of 1,000 nodes are silent")
	p.text(`#splits li[data-kind="partially_connected"]`, "cedar hears 0 of the 1000 nodes that alpha hears.")
	p.text(`#masters tr[data-master-id="12D3KooWcedar"] .badge[data-status="partial"]`, "partial")
	p.text(`#splits li[data-kind="settings"]`, "Settings of cedar differ from this master's and should not: offline-after: 3s there, 30s here.")
	p.text(`#masters tr[data-master-id="12D3KooWcedar"] [data-differs]`, "setting offline-after: 3s there, 30s here")

	cedar.Cause, cedar.Reason = crdtstore.CauseCollision, "two processes have this identity"
	f.set(func() { f.masters[1] = cedar })
	f.send("master", cedar)
	p.text(`#masters tr[data-master-id="12D3KooWcedar"] .badge[data-status="identity twice"]`, "identity twice")
	p.text(`#masters tr[data-master-id="12D3KooWcedar"] .note`, "two processes have this identity")

	f.set(func() {
		f.silence, f.splits, cedar.PartiallyConnected, cedar.Reason, cedar.Cause, cedar.SettingsDiffer = nil, nil, false, "", "", nil
		f.masters[1] = cedar
	})
	f.send("master", cedar)
	p.until(`document.querySelector('#splits').hidden && !document.querySelector('.badge[data-status="partial"]')`)
}

// Configured masters that were never met have a row each and a line at the top, also
// where two of them are one machine, and go when they are met.
func TestMastersNeverMet(t *testing.T) {
	f := startFixture(t)
	p := open(t, f)
	p.until(`document.querySelector('#masters tbody tr') && document.querySelector('#splits').hidden`)
	before := p.eval(`document.querySelectorAll('#masters tbody tr').length`)

	since := time.Now().Add(-5 * time.Minute)
	web := crdtstore.Master{Name: "10.0.0.2:9002", Status: crdtstore.MasterNeverMet, Cause: crdtstore.CauseNoMeshPort,
		Reason: "the API of a master <b>answers</b> there", Since: since, MeshAddrs: []string{"/ip4/10.0.0.2/tcp/9002"}}
	one := crdtstore.Master{ID: "12D3KooWdogwood", Name: "dogwood:9004", Status: crdtstore.MasterNeverMet, Cause: crdtstore.CauseSecret,
		Reason: "the cluster secrets differ", Since: since, MeshAddrs: []string{"/ip4/10.0.0.3/tcp/9004"}}
	two := one
	two.Name = "[fd00::3]:9004"
	f.set(func() { f.masters = append(f.masters, web, one, two) })
	f.send("master", web)
	row := func(name string) string { return `#masters tr[data-master-id="` + name + `"][data-status="never_met"]` }
	p.text(row(web.Name)+` .badge[data-status="no_mesh_port"]`, "no_mesh_port")
	p.text(row(web.Name)+` .note`, "the API of a master <b>answers</b> there")
	p.text(row(web.Name)+` [data-label="Last seen"]`, "5 min ago")
	p.text(row(web.Name)+` [data-label="Addresses"]`, "/ip4/10.0.0.2/tcp/9002")
	p.text(row(one.Name)+` .badge[data-status="secret"]`, "secret")
	p.text(row(two.Name)+` .badge[data-status="secret"]`, "secret")
	p.text(`#splits li[data-kind="never_met"][data-master-id="dogwood:9004"]`, "dogwood:9004 is configured as a master and was never met: the cluster secrets differ.")

	met := crdtstore.Master{ID: "12D3KooWdogwood", Name: "dogwood", Status: crdtstore.MasterAlive}
	f.set(func() { f.masters = append(slices.Clip(f.masters[:len(f.masters)-3]), met) })
	f.send("master", met)
	p.until(`document.querySelector('#splits').hidden && !document.querySelector('[data-status="never_met"]')`)
	p.text(`#masters tr[data-master-id="12D3KooWdogwood"] strong`, "dogwood")
	if after := p.eval(`document.querySelectorAll('#masters tbody tr').length`); after != before.(float64)+1 {
		t.Errorf("%v rows, before %v", after, before)
	}
}
