package explorer

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

type sse struct{ kind, id, data string }

// listen opens an event stream and returns a function that reads the next one.
func listen(t *testing.T, url, after string) func() sse {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatal(resp.Status, resp.Header)
	}
	lines := bufio.NewReader(resp.Body)
	timeout := time.AfterFunc(10*time.Second, func() { resp.Body.Close() })
	t.Cleanup(func() { timeout.Stop() })
	return func() (e sse) {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal("stream ended: ", err)
			}
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch name {
			case "event":
				e.kind = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			case "":
				if e.kind != "" {
					return e
				}
			}
		}
	}
}

func TestEvents(t *testing.T) {
	m := startMaster(t)
	m.must(nil, "register_node", `{"node_id":"n1","vms":[{"sid":"v1"}]}`)
	m.must(nil, "register_node", `{"node_id":"n2"}`)
	next := listen(t, m.url+"/events", "")
	first := next()
	var snapshot struct {
		Self    string
		Nodes   []crdtstore.Node
		VMs     []crdtstore.VM
		Masters []crdtstore.Master
		Stats   crdtstore.Stats
	}
	if err := json.Unmarshal([]byte(first.data), &snapshot); err != nil {
		t.Fatal(err)
	}
	if first.kind != "snapshot" || first.id != "2" || len(snapshot.Nodes) != 2 || len(snapshot.VMs) != 1 || len(snapshot.Masters) != 1 || snapshot.Self != "self" {
		t.Errorf("%+v", first)
	}
	m.must(nil, "drain_node", `{"node_id":"n1"}`)
	e := next()
	var n crdtstore.Node
	if err := json.Unmarshal([]byte(e.data), &n); err != nil || e.kind != "node" || e.id != "3" || !n.Drained {
		t.Errorf("%+v %v", e, err)
	}
	m.store.set(func() {
		m.store.emit(crdtstore.Change{Kind: crdtstore.VMChange, VM: &crdtstore.VM{SID: "v1", State: "deleted"}})
		m.store.emit(crdtstore.Change{Kind: crdtstore.MasterChange, Master: &crdtstore.Master{ID: "other"}})
	})
	if e := next(); e.kind != "vm" || !strings.Contains(e.data, `"deleted"`) {
		t.Errorf("%+v", e)
	}
	if e := next(); e.kind != "master" || e.id != "5" {
		t.Errorf("%+v", e)
	}

	resumed := listen(t, m.url+"/explorer/events", "3")
	if e := resumed(); e.kind != "vm" || e.id != "4" {
		t.Errorf("resumed with %+v", e)
	}
	for _, after := range []string{"of another run", "999"} {
		again := listen(t, m.url+"/events", after)
		if e := again(); e.kind != "snapshot" || e.id != "5" {
			t.Errorf("after %q: %.80s", after, e)
		}
	}
	if e := listen(t, m.url+"/events?snapshot=brief", "")(); e.kind != "snapshot" || e.id != "5" || strings.Contains(e.data, `"nodes":[`) || !json.Valid([]byte(e.data)) {
		t.Errorf("brief: %+v", e)
	}
	// And one that falls behind gets a fresh snapshot.
	m.store.set(func() { m.store.first = 5 })
	if e := listen(t, m.url+"/events", "3")(); e.kind != "snapshot" {
		t.Errorf("%.80s", e)
	}
}

func TestEventStreamsAreBounded(t *testing.T) {
	m := startMaster(t)
	for range maxStreams {
		m.streams <- struct{}{}
	}
	resp, b := get(t, http.DefaultClient, m.url+"/events")
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(b), `"code":-32007`) {
		t.Errorf("%s %s", resp.Status, b)
	}
	for range maxStreams {
		<-m.streams
	}
	listen(t, m.url+"/events", "")()
}

// What happened is told to those who ask for it, and can be asked for.
func TestLogOfEvents(t *testing.T) {
	m := startMaster(t)
	m.must(nil, "register_node", `{"node_id":"n1"}`)
	quiet, next := listen(t, m.url+"/events", ""), listen(t, m.url+"/events?snapshot=brief&log=1", "")
	quiet()
	next()
	happened := crdtstore.Event{
		ID: 7, At: time.Unix(1, 0).UTC(), Kind: crdtstore.OperatorEvent, Type: crdtstore.EventDrained,
		NodeID: "n1", Master: "self", By: "alice", Text: "n1 drained by alice through alpha",
	}
	m.store.set(func() {
		m.store.emit(crdtstore.Change{Kind: crdtstore.LogChange, Event: &happened})
		m.store.emit(crdtstore.Change{Kind: crdtstore.MasterChange, Master: &crdtstore.Master{ID: "other"}})
	})
	if e := quiet(); e.kind != "master" {
		t.Errorf("told without being asked: %+v", e)
	}
	e := next()
	var got crdtstore.Event
	if err := json.Unmarshal([]byte(e.data), &got); err != nil || e.kind != "log" || e.id != "2" || got != happened {
		t.Errorf("%+v %v", e, err)
	}
	if e := listen(t, m.url+"/events?log=1", "1")(); e.kind != "log" {
		t.Errorf("resumed with %+v", e)
	}
	var page crdtstore.EventPage
	m.must(&page, "events", `{"kind":"operator"}`)
	if len(page.Events) != 1 || page.Events[0] != happened {
		t.Errorf("%+v", page)
	}
	if a := m.call("events", `{"kind":"grid"}`); string(a.Result) != `{"events":[]}` {
		t.Errorf("none: %s", a.Result)
	}
	for params, code := range map[string]int{`{"cursor":"x"}`: -32009, `{"limit":1001}`: -32602, `{"limit":-1}`: -32602, `{"since":1}`: -32602} {
		if a := m.call("events", params); a.Error == nil || a.Error.Code != code {
			t.Errorf("%s: %+v", params, a.Error)
		}
	}
}
