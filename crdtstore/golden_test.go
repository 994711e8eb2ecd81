package crdtstore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/golden"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

func TestGoldenKnownMasters(t *testing.T) {
	path := filepath.Join(t.TempDir(), membershipFile)
	d, at := openDirectory(t, path), time.UnixMilli(1_760_000_000_500)
	d.observe(at, "12D3KooWoak", &liveness.MasterInfo{
		Name: "oak", Version: "1.4.2", RPCURLs: []string{"http://10.0.0.1:9002"}, UIURLs: []string{"http://10.0.0.1:9001"},
		MeshAddrs: []string{"/ip4/10.0.0.1/tcp/9004"},
	}, agreed)
	d.observe(at.Add(time.Second), "12D3KooWelm", &liveness.MasterInfo{Name: "elm"}, agreed)
	d.left("12D3KooWelm")
	if err := d.save(); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kept := golden.Text(t, membershipFile, string(written))
	if err := os.WriteFile(path, []byte(kept), 0o600); err != nil {
		t.Fatal(err)
	}
	list := shown(openDirectory(t, path), at)
	if len(list) != 2 || list[0].Name != "elm" || list[0].Status != MasterLeft || !metOthers(filepath.Dir(path)) {
		t.Fatalf("the kept file reads as %+v", list)
	}
	oak := list[1]
	if oak.ID != "12D3KooWoak" || oak.Name != "oak" || oak.Version != "1.4.2" || !oak.LastSeen.Equal(at) || oak.Status != MasterDown ||
		oak.RPCURLs[0] != "http://10.0.0.1:9002" || oak.UIURLs[0] != "http://10.0.0.1:9001" || oak.MeshAddrs[0] != "/ip4/10.0.0.1/tcp/9004/p2p/12D3KooWoak" {
		t.Errorf("the kept file reads as %+v", oak)
	}
}

// What a newer program has written is neither taken for damage nor overwritten.
func TestKnownMastersOfANewerVersion(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, membershipFile)
	const later = `{"version":2,"masters":{"12D3KooWoak":{"name":"oak"}}}`
	if err := os.WriteFile(path, []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Config{Dir: dir, Listen: []string{"127.0.0.1:0"}})
	if !errors.Is(err, atomicfile.ErrNewer) || !strings.Contains(err.Error(), path) {
		t.Errorf("opening fails with %v", err)
	}
	if left, err := os.ReadFile(path); err != nil || string(left) != later {
		t.Errorf("the file has become %s, %v", left, err)
	}
}
