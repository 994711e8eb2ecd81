package record

import (
	"encoding/json"
	"testing"
)

const fullReport = `{"node_id":"node-1","boot":5,"seq":1,"hostname":"h","socket_path":"unix:///s",
	"mycelium_ip":"5f::1","version":"1","location":{"country":"BE","city":"Ghent","latitude":51,"longitude":3},
	"total":{"cru":4,"mru":5,"sru":6,"hru":7},"slices_total":8,"machine_id":"m","agent_path":"unix:///a","labels":{"a":"1"},"trouble":["t"],
	"vms":[{"sid":"v","state":"running"}],"usage":{"cru":1},"uptime_s":9}`

// TestOmittedKeepsNullErases goes through every field: leaving it out keeps what
// is known, null erases it, and a value replaces it.
func TestOmittedKeepsNullErases(t *testing.T) {
	known := accept(t, State{}, parse(t, fullReport), 100)
	full := asMap(t, known)
	for _, c := range []struct {
		say, field string
		want       any // nil: as it was
	}{
		{`{}`, "", nil},
		{`{"hostname":null}`, "hostname", ""},
		{`{"hostname":""}`, "hostname", ""},
		{`{"hostname":"i"}`, "hostname", "i"},
		{`{"socket_path":null}`, "socket_path", ""},
		{`{"version":null}`, "version", ""},
		{`{"slices_total":null}`, "slices_total", 0.0},
		{`{"slices_total":0}`, "slices_total", 0.0},
		{`{"labels":null}`, "labels", map[string]any{}},
		{`{"labels":{}}`, "labels", map[string]any{}},
		{`{"labels":{"b":"2"}}`, "labels", map[string]any{"b": "2"}},
		{`{"location":null}`, "location", location("", "", 0, 0)},
		{`{"location":{}}`, "", nil},
		{`{"location":{"city":null}}`, "location", location("BE", "", 51, 3)},
		{`{"location":{"city":"Gent"}}`, "location", location("BE", "Gent", 51, 3)},
		{`{"location":{"country":"","latitude":0,"longitude":null}}`, "location", location("", "Ghent", 0, 0)},
		{`{"total":null}`, "total", capacity(0, 0, 0, 0)},
		{`{"total":{}}`, "", nil},
		{`{"total":{"cru":null}}`, "total", capacity(0, 5, 6, 7)},
		{`{"total":{"mru":0,"hru":1}}`, "total", capacity(4, 0, 6, 1)},
		{`{"total":{"sru":null}}`, "total", capacity(4, 5, 0, 7)},
		{`{"trouble":["u","s","u"]}`, "trouble", []any{"s", "u"}},
		{`{"vms":null}`, "vms", []any{}},
		{`{"vms":[]}`, "vms", []any{}},
		{`{"usage":null,"uptime_s":null,"unknown":{"x":1}}`, "", nil},
	} {
		t.Run(c.say, func(t *testing.T) {
			r := parse(t, c.say)
			r.NodeID, r.Boot, r.Seq = testNode, 5, 2
			got := asMap(t, accept(t, known, r, 200))
			for field, was := range full {
				want := was
				if field == c.field {
					want = c.want
				}
				switch field {
				case "seq", "last_seen", "updated_at":
					continue
				case "vms":
					if c.field == "vms" {
						break
					}
					if g, w := got["vms"].([]any), want.([]any); len(g) != len(w) {
						t.Errorf("vms is %v, want %v", g, w)
					}
					continue
				}
				if asText(t, got[field]) != asText(t, want) {
					t.Errorf("%s is %v, want %v", field, got[field], want)
				}
			}
			if got["seq"] != 2.0 {
				t.Errorf("seq is %v", got["seq"])
			}
		})
	}
	for _, field := range []string{"mycelium_ip", "machine_id", "agent_path", "trouble"} { // absent where empty
		t.Run(field, func(t *testing.T) {
			got := asMap(t, accept(t, known, parse(t, `{"node_id":"node-1","boot":6,"seq":1,"`+field+`":null}`), 200))
			if v, ok := got[field]; ok {
				t.Errorf("%s is %v", field, v)
			}
		})
	}
}

func location(country, city string, lat, long float64) map[string]any {
	return map[string]any{"country": country, "city": city, "latitude": lat, "longitude": long}
}

func capacity(cru, mru, sru, hru float64) map[string]any {
	return map[string]any{"cru": cru, "mru": mru, "sru": sru, "hru": hru}
}

func asMap(t *testing.T, s State) (out map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(asText(t, View(testNode, s))), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func asText(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A later boot of the same machine also keeps what it leaves out.
func TestOmittedKeepsAcrossBoots(t *testing.T) {
	s := accept(t, State{}, parse(t, fullReport), 100)
	s = accept(t, s, parse(t, `{"node_id":"node-1","boot":6,"seq":1,"hostname":"j"}`), 200)
	n := View(testNode, s)
	if n.Hostname != "j" || n.Total.CRU != 4 || len(n.VMs) != 1 || n.Boot != 6 {
		t.Errorf("shown %+v", n)
	}
	if n.VMs[0].AsOf != "1970-01-01T00:00:00Z" {
		t.Errorf("VMs that were left out are as of %s", n.VMs[0].AsOf)
	}
}

// In Go a report is complete: what is empty is said to be empty.
func TestGoReportIsComplete(t *testing.T) {
	s := accept(t, State{}, parse(t, fullReport), 100)
	n := View(testNode, accept(t, s, report(5, 2, "h"), 200))
	if n.Total != (Capacity{}) || len(n.VMs) != 0 || len(n.Labels) != 0 {
		t.Errorf("shown %+v", n)
	}
}

// A signed report is complete even when its JSON left fields out: what was
// signed is kept byte for byte.
func TestSignedReportIsComplete(t *testing.T) {
	s := accept(t, State{}, signed(parse(t, fullReport), 1), 100)
	sent := signed(report(5, 2, "only"), 1)
	r := parse(t, `{"node_id":"node-1","boot":5,"seq":2,"hostname":"only","public_key":`+asText(t, sent.PublicKey)+
		`,"signature":`+asText(t, sent.Signature)+`}`)
	if r.Omitted == 0 {
		t.Fatal("nothing was left out")
	}
	s = accept(t, s, r, 200)
	n := View(testNode, s)
	if n.Hostname != "only" || n.SocketPath != "" || len(n.VMs) != 0 || len(n.Labels) != 0 {
		t.Errorf("shown %+v", n)
	}
	if c := s.Claims[0]; c.Profile.Body != sent.Profile.encode() || c.VMs.Body != "" {
		t.Errorf("kept %+v", c)
	}
	if !s.Verified(testNode).Equal(s) {
		t.Error("the signature does not fit what was kept")
	}
}

// What another identity said is not used to complete a report.
func TestOmittedIsNotTakenFromAnotherClaim(t *testing.T) {
	s := accept(t, State{}, signed(parse(t, fullReport), 1), 100)
	s = Join(s, s.Remove(200, "m", "ann", "gone"))
	s = accept(t, s, parse(t, `{"node_id":"node-1","boot":6,"seq":1,"hostname":"new"}`), 300)
	if n := View(testNode, s); n.Hostname != "new" || n.Total.CRU != 0 || len(n.VMs) != 0 || n.Signed {
		t.Errorf("shown %+v", n)
	}
}

// Nor is what a removal hides.
func TestOmittedIsNotTakenFromARemovedAccount(t *testing.T) {
	s := accept(t, State{}, parse(t, fullReport), 100)
	s = Join(s, s.Remove(200, "m", "ann", "gone"))
	s = accept(t, s, parse(t, `{"node_id":"node-1","boot":6,"seq":1,"hostname":"new"}`), 300)
	if n := View(testNode, s); n.Hostname != "new" || n.Total.CRU != 0 || len(n.VMs) != 0 {
		t.Errorf("shown %+v", n)
	}
}
