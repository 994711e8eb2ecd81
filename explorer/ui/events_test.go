package ui_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// What happened is listed, the latest first, and goes on.
func TestEvents(t *testing.T) {
	f := startFixture(t)
	f.put(aNode("n1"))
	for i := range 60 {
		f.happen(crdtstore.Event{Kind: crdtstore.NodeEvent, Type: crdtstore.EventOffline, NodeID: "n0", Text: fmt.Sprint("event ", i)})
	}
	p := open(t, f)
	p.text(`#events tbody tr:first-child`, "event 59")
	p.until(`document.querySelectorAll('#events tbody tr').length === 50`)
	p.text(`#events .pager .where`, "1 – 50")
	f.happen(crdtstore.Event{Kind: crdtstore.OperatorEvent, Type: crdtstore.EventDrained, NodeID: "n1", By: "alice", Text: "n1 <b>drained</b> by alice through alpha"})
	p.text(`#events tbody tr:first-child .badge[data-status="drained"]`, "drained")
	p.text(`#events tbody tr:first-child`, "n1 <b>drained</b> by alice through alpha") // nothing in it is markup
	p.run(chromedp.SetValue(`#events-kind`, "operator"), chromedp.Evaluate(`document.querySelector('#events-filter').requestSubmit()`, nil))
	p.until(`document.querySelectorAll('#events tbody tr').length === 1`)
	p.run(chromedp.Click(`#events tbody tr:first-child button`))
	p.text(`#node-dialog[open] #node-title`, "host-of-n1")
}
