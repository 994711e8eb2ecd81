package membership

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/golden"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
)

func TestGoldenKnownMasters(t *testing.T) {
	at := time.UnixMilli(1_760_000_000_500)
	cfg := config(filepath.Join(t.TempDir(), "masters.json"), nil)
	cfg.Wall = func() time.Time { return at }
	d := load(t, cfg)
	d.Observe(at, "12D3KooWoak", &liveness.MasterInfo{
		Name: "oak", Version: "1.4.2", RPCURLs: []string{"http://10.0.0.1:9002"}, UIURLs: []string{"http://10.0.0.1:9001"},
		MeshAddrs: []string{"/ip4/10.0.0.1/tcp/9004"},
	}, true)
	at = at.Add(time.Second)
	d.Observe(at, "12D3KooWelm", &liveness.MasterInfo{Name: "elm"}, true)
	d.Left(at, "12D3KooWelm")
	if err := d.Save(); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	kept := golden.Text(t, "masters.json", string(written))
	if err := os.WriteFile(cfg.Path, []byte(kept), 0o600); err != nil {
		t.Fatal(err)
	}
	list := load(t, cfg).Members(at)
	if len(list) != 2 || list[0].Name != "elm" || list[0].Status != Left {
		t.Fatalf("the kept file reads as %+v", list)
	}
	oak := list[1]
	if oak.ID != "12D3KooWoak" || oak.Name != "oak" || oak.Version != "1.4.2" || !oak.LastSeen.Equal(at.Add(-time.Second)) || oak.Status != Down ||
		oak.RPCURLs[0] != "http://10.0.0.1:9002" || oak.UIURLs[0] != "http://10.0.0.1:9001" || oak.MeshAddrs[0] != "/ip4/10.0.0.1/tcp/9004" {
		t.Errorf("the kept file reads as %+v", oak)
	}
}
