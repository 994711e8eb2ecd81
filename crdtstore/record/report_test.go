package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestReportJSONNamesTheField(t *testing.T) {
	for in, field := range map[string]string{
		`{"node_id":5}`:                       "node_id",
		`{"boot":-1}`:                         "boot",
		`{"boot":1.5}`:                        "boot",
		`{"seq":"1"}`:                         "seq",
		`{"hostname":5}`:                      "hostname",
		`{"hostname":{}}`:                     "hostname",
		`{"location":5}`:                      "location",
		`{"location":{"latitude":"x"}}`:       "location.latitude",
		`{"total":[]}`:                        "total",
		`{"total":{"mru":-5}}`:                "total.mru",
		`{"total":{"cru":1e999}}`:             "total.cru",
		`{"slices_total":true}`:               "slices_total",
		`{"labels":[]}`:                       "labels",
		`{"labels":{"a":5}}`:                  "labels",
		`{"trouble":"full"}`:                  "trouble",
		`{"trouble":[5]}`:                     "trouble",
		`{"vms":5}`:                           "vms",
		`{"vms":[{"sid":5}]}`:                 "vms.sid",
		`{"usage":{"cru":"x"}}`:               "usage.cru",
		`{"uptime_s":18446744073709551616}`:   "uptime_s",
		`{"public_key":5}`:                    "public_key",
		`{"hostname":"good","version":false}`: "version",
	} {
		r := Report{NodeID: "before"}
		err := json.Unmarshal([]byte(in), &r)
		if field2 := new(FieldError); !errors.As(err, &field2) || field2.Field != field {
			t.Errorf("%s: %v; want an error for %s", in, err, field)
		}
		if r.NodeID != "before" {
			t.Errorf("%s: refused, and yet the report changed", in)
		}
	}
}

func TestReportJSONRoundTrip(t *testing.T) {
	sent := signed(typicalReport(3), 1)
	got := parse(t, asText(t, sent))
	if got.Omitted&^(1<<15|1<<16) != 0 && got.MyceliumIP != "" { // typical: no agent_path and no trouble
		t.Errorf("a whole report left out %b", got.Omitted)
	}
	if !got.verified() || asText(t, got) != asText(t, sent) {
		t.Errorf("sent %s\ngot  %s", asText(t, sent), asText(t, got))
	}
	empty := parse(t, asText(t, Report{NodeID: "n"}))
	if empty.Omitted&^(1<<2|1<<14|1<<15|1<<16) != 0 { // mycelium_ip, machine_id, agent_path and trouble are left out where empty
		t.Errorf("an empty report left out %b", empty.Omitted)
	}
}

func TestReportValidate(t *testing.T) {
	long := strings.Repeat("x", 2000)
	vms := func(n int) (out []VM) {
		for i := range n {
			out = append(out, VM{SID: fmt.Sprint(i)})
		}
		return out
	}
	labels := map[string]string{}
	for i := range MaxLabels {
		labels[fmt.Sprint(i)] = "v"
	}
	more := map[string]string{"more": ""}
	for k, v := range labels {
		more[k] = v
	}
	for _, c := range []struct {
		field  string // empty: valid
		change func(*Report)
	}{
		{"", func(*Report) {}},
		{"node_id", func(r *Report) { r.NodeID = "" }},
		{"node_id", func(r *Report) { r.NodeID = "a b" }},
		{"node_id", func(r *Report) { r.NodeID = "ä" }},
		{"node_id", func(r *Report) { r.NodeID = "a/b" }},
		{"node_id", func(r *Report) { r.NodeID = "a\x00" }},
		{"", func(r *Report) { r.NodeID = "AZaz09._:-" }},
		{"", func(r *Report) { r.NodeID = long[:128] }},
		{"node_id", func(r *Report) { r.NodeID = long[:129] }},
		{"", func(r *Report) { r.Boot, r.Seq = math.MaxInt64, math.MaxInt64 }},
		{"boot", func(r *Report) { r.Boot = math.MaxInt64 + 1 }},
		{"seq", func(r *Report) { r.Seq = math.MaxInt64 + 1 }},
		{"", func(r *Report) { r.Hostname, r.SocketPath = long[:256], long[:1024] }},
		{"hostname", func(r *Report) { r.Hostname = long[:257] }},
		{"hostname", func(r *Report) { r.Hostname = "\xff" }},
		{"socket_path", func(r *Report) { r.SocketPath = long[:1025] }},
		{"mycelium_ip", func(r *Report) { r.MyceliumIP = long }},
		{"version", func(r *Report) { r.Version = "\xc3" }},
		{"location.country", func(r *Report) { r.Location.Country = long }},
		{"location.city", func(r *Report) { r.Location.City = long }},
		{"", func(r *Report) { r.Location.Latitude, r.Location.Longitude = -90, 180 }},
		{"location.latitude", func(r *Report) { r.Location.Latitude = 90.01 }},
		{"location.latitude", func(r *Report) { r.Location.Latitude = math.NaN() }},
		{"location.longitude", func(r *Report) { r.Location.Longitude = -181 }},
		{"location.longitude", func(r *Report) { r.Location.Longitude = math.Inf(1) }},
		{"total.cru", func(r *Report) { r.Total.CRU = -1 }},
		{"total.cru", func(r *Report) { r.Total.CRU = math.NaN() }},
		{"usage.cru", func(r *Report) { r.Usage.CRU = math.Inf(1) }},
		{"", func(r *Report) { r.Labels = labels }},
		{"labels", func(r *Report) { r.Labels = more }},
		{"labels", func(r *Report) { r.Labels = map[string]string{"": "x"} }},
		{"labels", func(r *Report) { r.Labels = map[string]string{long[:129]: "x"} }},
		{"labels.k", func(r *Report) { r.Labels = map[string]string{"k": long} }},
		{"labels.k", func(r *Report) { r.Labels = map[string]string{"k": "\xff"} }},
		{"", func(r *Report) { r.Trouble = slices.Repeat([]string{long[:256]}, MaxTrouble) }},
		{"trouble", func(r *Report) { r.Trouble = slices.Repeat([]string{"x"}, MaxTrouble+1) }},
		{"trouble[1]", func(r *Report) { r.Trouble = []string{"x", ""} }},
		{"trouble[0]", func(r *Report) { r.Trouble = []string{long[:257]} }},
		{"trouble[0]", func(r *Report) { r.Trouble = []string{"\xff"} }},
		{"", func(r *Report) { r.VMs = vms(MaxVMs) }},
		{"vms", func(r *Report) { r.VMs = vms(MaxVMs + 1) }},
		{"vms", func(r *Report) { // each within its bounds, too much together
			r.VMs = vms(MaxVMs)
			for i := range r.VMs {
				r.VMs[i].Name, r.VMs[i].State = long[:256], long[:256]
			}
		}},
		{"vms[1].sid", func(r *Report) { r.VMs = []VM{{SID: "a"}, {}} }},
		{"vms[1].sid", func(r *Report) { r.VMs = []VM{{SID: "a"}, {SID: "a"}} }},
		{"vms[0].sid", func(r *Report) { r.VMs = []VM{{SID: long}} }},
		{"vms[0].name", func(r *Report) { r.VMs = []VM{{SID: "a", Name: long}} }},
		{"vms[0].state", func(r *Report) { r.VMs = []VM{{SID: "a", State: "\xff"}} }},
		{"vms[0].ip", func(r *Report) { r.VMs = []VM{{SID: "a", IP: long}} }},
	} {
		r := report(1, 1, "h")
		c.change(&r)
		err := r.Validate()
		if c.field == "" {
			if err != nil {
				t.Errorf("valid, but %v", err)
			}
			continue
		}
		field := new(FieldError)
		if !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("Validate: %v; want an error for %s", err, c.field)
			continue
		}
		if !strings.HasPrefix(err.Error(), c.field+": ") || strings.Contains(err.Error(), "\x00") {
			t.Errorf("message %q", err)
		}
		known := accept(t, State{}, report(1, 1, "h"), 1)
		if delta, err := Accept(known, r, Acceptance{Now: 2}); !errors.As(err, &field) || !delta.IsZero() {
			t.Errorf("Accept: %+v, %v; want the same refusal", delta, err)
		}
	}
}
