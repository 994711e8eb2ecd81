package explorer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// problem reads the error of a backup or restore.
func problem(t *testing.T, b []byte) (message, hint string) {
	t.Helper()
	var p struct{ Error, Hint string }
	if err := json.Unmarshal(b, &p); err != nil || p.Error == "" || p.Hint == "" {
		t.Errorf("not an error with a hint: %s", b)
	}
	return p.Error, p.Hint
}

func TestBackupGoesFromStoreToStore(t *testing.T) {
	from, to := startReal(t, testConfig(t)), startReal(t, testConfig(t))
	for i := range 300 {
		from.must(nil, "register_node", fmt.Sprintf(`{"node_id":"n%03d","boot":1,"seq":1,"hostname":"%s"}`, i, strings.Repeat("h", 200)))
	}
	from.must(nil, "drain_node", `{"node_id":"n001"}`)
	from.must(nil, "remove_node", `{"node_id":"n002"}`)
	resp, file := get(t, http.DefaultClient, from.url+"/backup")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition"))
	if err != nil || !regexp.MustCompile(`^hero_explorer-\d{8}T\d{6}Z\.backup$`).MatchString(params["filename"]) {
		t.Errorf("file name %q, %v", params["filename"], err)
	}
	// The prefix works too, and damaged files change nothing.
	if _, same := get(t, from.unix(), "http://x/explorer/backup"); !bytes.Equal(same, file) {
		t.Error("the same records give another backup")
	}
	for _, at := range []int{0, 5, len(file) / 2, len(file) - 1} {
		damaged := bytes.Clone(file)
		damaged[at] ^= 1
		for what, bad := range map[string][]byte{"damaged": damaged, "cut off": file[:at]} {
			status, b := to.post(to.url+"/restore", string(bad))
			if message, _ := problem(t, b); status != http.StatusBadRequest || !strings.Contains(message, "not a backup") {
				t.Errorf("%s at %d: %d %s", what, at, status, b)
			}
		}
	}
	for i, want := range []string{`{"nodes":300,"changed":300}`, `{"nodes":300,"changed":0}`} {
		if status, b := to.post(to.url+"/restore", string(file)); status != http.StatusOK || strings.TrimSpace(string(b)) != want {
			t.Fatalf("restore %d: %d %s", i, status, b)
		}
	}
	digest := func(m *testMaster) string {
		var a MastersAnswer
		m.must(&a, "masters", `{}`)
		return a.Masters[0].Digest
	}
	if digest(from) != digest(to) {
		t.Error("digests differ after restoring")
	}
	if _, b := get(t, http.DefaultClient, to.url+"/metrics"); !strings.Contains(string(b), `http_requests_total{path="/restore",status="200"} 2`) {
		t.Error("restores are not counted")
	}
}

func TestTransfersAreGuarded(t *testing.T) {
	m := startMaster(t)
	_, secret, err := CreateToken(m.cfg.DataDir, "ci")
	if err != nil {
		t.Fatal(err)
	}
	m.must(nil, "register_node", `{"node_id":"n1"}`)
	token := []string{"Authorization", "Bearer " + secret}
	foreign := []string{"Sec-Fetch-Site", "cross-site"}
	for _, c := range []struct {
		who    string
		want   int
		header []string
	}{
		{"loopback", http.StatusOK, nil},
		{"elsewhere", http.StatusUnauthorized, remote},
		{"a wrong token", http.StatusUnauthorized, append([]string{"Authorization", "Bearer hxp_wrong"}, remote...)},
		{"a token", http.StatusOK, append(token, remote...)},
		{"another site", http.StatusForbidden, foreign},
		{"another site elsewhere", http.StatusForbidden, append(append(token, remote...), foreign...)},
		{"rebinding", http.StatusMisdirectedRequest, []string{"Host", "evil.example", "Sec-Fetch-Site", "same-origin"}},
		{"the address bar", http.StatusOK, []string{"Sec-Fetch-Site", "none"}},
	} {
		resp, b := get(t, http.DefaultClient, m.url+"/backup", c.header...)
		if resp.StatusCode != c.want || resp.StatusCode != http.StatusOK && bytes.Contains(b, []byte("n1")) {
			t.Errorf("backup by %s: %s %s", c.who, resp.Status, b)
		}
		if resp.StatusCode == http.StatusUnauthorized {
			problem(t, b)
		}
		if status, b := m.post(m.url+"/restore", "a\nend", c.header...); status != c.want {
			t.Errorf("restore by %s: %d %s", c.who, status, b)
		}
	}
	for _, path := range []string{"/backup", "/explorer/backup"} {
		if resp, b := get(t, http.DefaultClient, m.page+path); resp.StatusCode == http.StatusOK && bytes.Contains(b, []byte("n1")) {
			t.Errorf("the page's listener serves %s", path)
		}
	}
	all := startMaster(t, func(c *Config) { c.Auth = AuthAll })
	if resp, _ := get(t, http.DefaultClient, all.url+"/backup"); resp.StatusCode != http.StatusUnauthorized {
		t.Error("loopback is trusted where nobody is:", resp.Status)
	}
	if resp, _ := get(t, all.unix(), "http://x/backup"); resp.StatusCode != http.StatusOK {
		t.Error("unix socket:", resp.Status)
	}
}

// A backup that breaks off does not look whole.
func TestBackupBreaksOff(t *testing.T) {
	m := startMaster(t)
	m.store.backingUp = func(_ context.Context, w io.Writer) error {
		_, err := w.Write(make([]byte, 100<<10))
		return errors.Join(err, errors.New("a fault"))
	}
	resp, err := http.Get(m.url + "/backup")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d bytes ended as if they were all", len(b))
	}
	if _, b := get(t, http.DefaultClient, m.url+"/metrics"); !strings.Contains(string(b), `http_requests_total{path="/backup",status="aborted"} 1`) {
		t.Errorf("not counted as broken off: %s", regexp.MustCompile(`.*path="/backup".*`).FindString(string(b)))
	}
	// Before the first byte there can be a proper answer.
	m.store.set(func() { m.store.backingUp, m.store.health = nil, crdtstore.ErrUnavailable })
	resp, b := get(t, http.DefaultClient, m.url+"/backup")
	problem(t, b)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Content-Disposition") != "" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
}

func TestRestoreRefuses(t *testing.T) {
	m := startMaster(t, func(c *Config) { c.MaxRestore = 1000 })
	long := strings.Repeat("x", 2000) + "end"
	chunked := io.MultiReader(strings.NewReader(long)) // whose length is not known
	for what, body := range map[string]io.Reader{"length": strings.NewReader(long), "chunked": chunked} {
		resp, err := http.Post(m.url+"/restore", "", body)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if message, _ := problem(t, b); resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(message, "1000 bytes") {
			t.Errorf("%s: %s %s", what, resp.Status, b)
		}
	}
	m.store.set(func() { m.store.health = crdtstore.ErrUnavailable })
	status, b := m.post(m.url+"/restore", "end")
	if problem(t, b); status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", status, b)
	}
	if resp, _ := get(t, http.DefaultClient, m.url+"/restore"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Error("GET /restore:", resp.Status)
	}
}

// Only so many run at a time.
func TestTransfersAreBounded(t *testing.T) {
	m := startMaster(t)
	begun, release := make(chan struct{}), make(chan struct{})
	m.store.restoring = func() { begun <- struct{}{}; <-release }
	done := make(chan int)
	for range maxTransfers {
		go func() {
			resp, err := http.Post(m.url+"/restore", "", strings.NewReader("end"))
			if err != nil {
				done <- 0
				return
			}
			resp.Body.Close()
			done <- resp.StatusCode
		}()
		<-begun
	}
	resp, b := get(t, http.DefaultClient, m.url+"/backup")
	if problem(t, b); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more: %s", resp.Status)
	}
	close(release)
	for range maxTransfers {
		if status := <-done; status != http.StatusOK {
			t.Errorf("restore: %d", status)
		}
	}
}
