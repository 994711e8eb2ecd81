package explorer

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// remote is what a reverse proxy on this machine sends for a caller elsewhere.
var remote = []string{"X-Forwarded-For", "203.0.113.9"}

var (
	openCalls = [][2]string{
		{"list_nodes", `{}`}, {"stats", `{}`}, {"masters", `{}`}, {"rpc.discover", `{}`}, {"list_vms", `{}`},
		{"get_node", `{"node_id":"n1"}`}, {"register_node", `{"node_id":"n1"}`}, {"node_heartbeat", `{"node_id":"n1"}`},
		{"node_heartbeats", `{"beats":[]}`},
	}
	guardedCalls = [][2]string{
		{"end_preservation", `{}`}, {"drain_node", `{"node_id":"n1"}`}, {"undrain_node", `{"node_id":"n1"}`}, {"label_node", `{"node_id":"n1","labels":{"a":"b"}}`},
		{"deploy_vm", `{"node_id":"n1"}`}, {"start_vm", `{"node_id":"n1"}`}, {"stop_vm", `{"node_id":"n1"}`}, {"restart_vm", `{"node_id":"n1"}`},
		{"delete_vm", `{"node_id":"n1"}`}, {"vm_stats", `{"node_id":"n1"}`}, {"vm_logs", `{"node_id":"n1"}`}, {"vm_exec", `{"node_id":"n1"}`},
		{"proxy", `{"node_id":"n1","method":"list_vms"}`}, {"remove_node", `{"node_id":"n1"}`},
	}
)

func TestAuth(t *testing.T) {
	for _, c := range []struct {
		mode                          AuthMode
		openRemote, guardedRemote, lo bool
	}{
		{AuthAuto, true, false, true},
		{AuthOff, true, true, true},
		{AuthAll, false, false, false},
	} {
		t.Run(string(c.mode), func(t *testing.T) {
			m := startMaster(t, func(cfg *Config) { cfg.Auth = c.mode })
			_, secret, err := CreateToken(m.cfg.DataDir, "ci")
			if err != nil {
				t.Fatal(err)
			}
			token := []string{"Authorization", "Bearer " + secret}
			m.must(nil, "register_node", `{"node_id":"n1"}`, token...)
			allowed := func(want bool, who string, call [2]string, header ...string) {
				t.Helper()
				a := m.call(call[0], call[1], header...)
				if got := a.Error == nil || a.Error.Code != -32005; got != want {
					t.Errorf("%s by %s: allowed %v, want %v (%+v)", call[0], who, got, want, a.Error)
				}
			}
			for _, call := range openCalls {
				allowed(c.openRemote, "remote", call, remote...)
				allowed(c.lo, "loopback", call)
				allowed(true, "token", call, append(token, remote...)...)
			}
			before := m.store.encoded()
			for _, call := range guardedCalls {
				if !c.guardedRemote {
					allowed(false, "remote", call, remote...)
					allowed(false, "wrong token", call, append([]string{"Authorization", "Bearer hxp_wrong"}, remote...)...)
					allowed(false, "no bearer", call, append([]string{"Authorization", "Basic " + secret}, remote...)...)
				}
			}
			if m.store.encoded() != before {
				t.Error("a refused call changed something")
			}
			for _, call := range guardedCalls[:len(guardedCalls)-1] {
				allowed(c.lo, "loopback", call)
				allowed(true, "token", call, append(token, remote...)...)
			}
			resp, err := m.unix().Post("http://x/rpc", "", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"remove_node","params":{"node_id":"n1"}}`))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), `"removed_at"`) {
				t.Errorf("unix socket: %s", b)
			}
			for _, path := range []string{"/metrics", "/openrpc.json", "/.well-known/heroservice.json", "/health"} {
				want := http.StatusOK
				if !c.openRemote && path != "/health" {
					want = http.StatusUnauthorized
				}
				if resp, b := get(t, http.DefaultClient, m.url+path, remote...); resp.StatusCode != want {
					t.Errorf("%s from elsewhere: %s %.100s", path, resp.Status, b)
				}
				if resp, _ := get(t, http.DefaultClient, m.url+path, append(token, remote...)...); resp.StatusCode != http.StatusOK {
					t.Errorf("%s with a token: %s", path, resp.Status)
				}
			}
			if resp, _ := get(t, http.DefaultClient, m.page+"/"); resp.StatusCode != http.StatusOK {
				t.Errorf("page: %s", resp.Status)
			}
		})
	}
}

func TestWhoDrained(t *testing.T) {
	m := startMaster(t)
	_, secret, err := CreateToken(m.cfg.DataDir, "ci")
	if err != nil {
		t.Fatal(err)
	}
	m.must(nil, "register_node", `{"node_id":"n1"}`)
	m.must(nil, "drain_node", `{"node_id":"n1"}`, append([]string{"Authorization", "bearer " + secret}, remote...)...)
	if by := m.store.states["n1"].Override("drain").By; by != "token ci" {
		t.Errorf("drained by %q", by)
	}
}

func TestForwardedFor(t *testing.T) {
	for header, want := range map[string]string{
		"X-Forwarded-For: 127.0.0.1":              "",
		"X-Forwarded-For: ::1, 127.0.0.2":         "",
		"X-Forwarded-For: 127.0.0.1, 203.0.113.9": "203.0.113.9",
		"X-Forwarded-For: 203.0.113.9, 127.0.0.1": "203.0.113.9",
		"X-Real-Ip: 10.0.0.1":                     "10.0.0.1",
		"Forwarded: for=127.0.0.1":                "behind a proxy",
		"X-Forwarded-For: ":                       "behind a proxy",
	} {
		name, value, _ := strings.Cut(header, ": ")
		if got := forwardedFor(http.Header{name: {value}}); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
}

// Web pages of other sites cannot use the trust in loopback.
func TestOtherSites(t *testing.T) {
	m := startMaster(t, func(c *Config) { c.Advertise = []string{"explorer.example.org", "rpc=https://api.example.org/x"} })
	m.must(nil, "register_node", `{"node_id":"n1"}`)
	const drain = `{"jsonrpc":"2.0","id":1,"method":"drain_node","params":{"node_id":"n1"}}`
	host := strings.TrimPrefix(m.url, "http://")
	for _, base := range []string{m.url + "/rpc", m.page + "/explorer/rpc"} {
		for _, c := range []struct {
			status int
			header []string
		}{
			{http.StatusForbidden, []string{"Origin", "https://evil.example"}},
			{http.StatusForbidden, []string{"Origin", "null"}},
			{http.StatusForbidden, []string{"Sec-Fetch-Site", "cross-site"}},
			{http.StatusForbidden, []string{"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:1"}},
			{http.StatusMisdirectedRequest, []string{"Host", "evil.example:9002", "Origin", "http://evil.example:9002", "Sec-Fetch-Site", "same-origin"}},
			{http.StatusMisdirectedRequest, []string{"Host", "evil.example", "X-Forwarded-For", "1.2.3.4"}},
			{http.StatusOK, []string{"Sec-Fetch-Site", "same-origin"}},
			{http.StatusOK, []string{"Sec-Fetch-Site", "none"}},
			{http.StatusOK, []string{"Host", host, "Origin", "http://" + host}},
			{http.StatusOK, []string{"Host", "localhost:9002"}},
			{http.StatusOK, []string{"Host", "[::1]:9002"}},
			{http.StatusOK, []string{"Host", "Explorer.Example.org"}},
			{http.StatusOK, []string{"Host", "api.example.org"}},
		} {
			before := m.store.encoded()
			status, b := m.post(base, drain, c.header...)
			if status != c.status {
				t.Errorf("%s %v: %d %s, want %d", base, c.header, status, b, c.status)
			}
			if status != http.StatusOK && (m.store.encoded() != before || !json.Valid(b)) {
				t.Errorf("%s %v: %s", base, c.header, b)
			}
		}
	}
	off := startMaster(t, func(c *Config) { c.Auth = AuthOff })
	if status, b := off.post(off.url+"/rpc", drain, append([]string{"Host", "evil.example", "Origin", "http://evil.example"}, remote...)...); status != http.StatusMisdirectedRequest {
		t.Errorf("rebinding where everybody is trusted: %d %s", status, b)
	}
	if resp, _ := get(t, http.DefaultClient, m.url+"/events", "Host", "evil.example"); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Error("events can be read by rebinding:", resp.Status)
	}
}
