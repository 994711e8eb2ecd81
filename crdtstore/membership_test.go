package crdtstore

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
)

func openDirectory(t testing.TB, path string) *membership {
	t.Helper()
	d, err := loadMembership(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// shown is what a directory shows when all masters agree.
func shown(d *membership, now time.Time) []Master {
	return d.masters(now, func(string) time.Duration { return 0 }, func(string) replica.Agreement { return agreed })
}

var agreed = replica.Agreement{InSync: true, Equal: time.Unix(1, 0)}

func TestMastersPassThroughTheirStatuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDirectory(t, filepath.Join(t.TempDir(), "masters.json"))
		info := &liveness.MasterInfo{Name: "one", Version: "1", Wall: time.Now().UnixMilli()}
		var published []string
		publish := func(id string) { published = append(published, id+" "+string(shown(d, time.Now())[0].Status)) }
		hear := func(want bool) {
			t.Helper()
			if got := d.observe(time.Now(), "m1", info, agreed); got != want {
				t.Errorf("heard says %v, want %v", got, want)
			}
		}
		hear(true)
		for range 4 { // while it speaks, there is nothing to tell
			time.Sleep(time.Second)
			hear(false)
			d.sweep(time.Now(), publish)
		}
		for range 30 {
			time.Sleep(time.Second)
			d.sweep(time.Now(), publish)
			if d.reachable("m1") && shown(d, time.Now())[0].Status != MasterAlive {
				t.Error("reachable and not alive")
			}
		}
		hear(true)
		d.left("m1")
		d.sweep(time.Now(), publish)
		if d.reachable("m1") || shown(d, time.Now())[0].Status != MasterLeft {
			t.Error("one that has left is alive")
		}
		time.Sleep(time.Hour)
		d.sweep(time.Now(), publish)
		if want := []string{"m1 suspect", "m1 down"}; !slices.Equal(published, want) {
			t.Errorf("told %q, want %q", published, want)
		}
		hear(true)
		if !d.reachable("m1") {
			t.Error("one that has come back is not reachable")
		}
		d.left("nobody")
		if d.reachable("nobody") {
			t.Error("nobody is reachable")
		}
	})
}

func TestLagIsTheTimeSinceTheDigestsWereEqual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDirectory(t, filepath.Join(t.TempDir(), "masters.json"))
		info := &liveness.MasterInfo{Name: "one", Nodes: 3, Digest: []byte{1, 0xab}, Wall: time.Now().Add(90 * time.Second).UnixMilli()}
		a := replica.Agreement{InSync: true, Equal: time.Now()}
		show := func() Master {
			return d.masters(time.Now(), func(string) time.Duration { return 1500 * time.Microsecond }, func(string) replica.Agreement { return a })[0]
		}
		d.observe(time.Now(), "m1", info, a)
		if m := show(); !m.InSync || m.LagS != 0 || m.Nodes != 3 || m.Digest != "01ab" || m.ClockSkewS != 90 || m.RTTms != 1.5 {
			t.Errorf("%+v", m)
		}
		time.Sleep(2 * time.Second)
		a.InSync, a.Differs = false, 7
		if !d.observe(time.Now(), "m1", info, a) {
			t.Error("watchers are not told that a master differs")
		}
		time.Sleep(time.Second)
		if m := show(); m.InSync || m.LagS != 3 || m.Differs != 7 {
			t.Errorf("%+v", m)
		}
		time.Sleep(time.Minute)
		a.InSync = true
		if m := show(); m.InSync || m.Status != MasterDown {
			t.Errorf("in sync with one that is down: %+v", m)
		}
	})
}

func TestDirectoryIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "masters.json")
	d := openDirectory(t, path)
	if err := d.save(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("an empty directory was written")
	}
	now := time.Now()
	d.observe(now, "m1", &liveness.MasterInfo{Name: "one", MeshAddrs: []string{"/ip4/10.0.0.1/tcp/9004"}, RPCURLs: []string{"http://a"}}, agreed)
	d.observe(now, "m2", &liveness.MasterInfo{Name: "two"}, agreed)
	d.left("m2")
	if err := d.save(); err != nil {
		t.Fatal(err)
	}
	again := openDirectory(t, path)
	list := shown(again, now)
	if len(list) != 2 || list[0].Name != "one" || list[0].Status != MasterDown || list[1].Status != MasterLeft {
		t.Fatalf("%+v", list)
	}
	if want := []string{"/ip4/10.0.0.1/tcp/9004/p2p/m1"}; !slices.Equal(list[0].MeshAddrs, want) || list[0].RPCURLs[0] != "http://a" {
		t.Errorf("%+v", list[0])
	}
	if list[1].RPCURLs == nil || list[1].UIURLs == nil || !list[0].LastSeen.Equal(now.Round(0)) {
		t.Errorf("%+v", list)
	}
	if len(again.contacts()) != 2 || again.reachable("m1") {
		t.Error("not looked for, or reachable before it was heard")
	}
	published := 0
	again.sweep(now, func(string) { published++ })
	if published != 0 {
		t.Error("what was so at the start is told as a change")
	}
}

func TestBrokenDirectoryIsMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "masters.json")
	for _, content := range []string{"", "{", "{}", `"x"`, "[]", "null", "[null]", `{"version":1}`, `{"version":1,"masters":[null]}`, `{"version":1,"masters":{}}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		d := openDirectory(t, path)
		if n := len(shown(d, time.Now())); n != 0 {
			t.Errorf("%q gives %d masters", content, n)
		}
		d.observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one"}, agreed)
		if err := d.save(); err != nil {
			t.Error(err)
		}
		if again := openDirectory(t, path); len(again.contacts()) != 1 {
			t.Errorf("after %q nothing is kept", content)
		}
	}
	if _, err := loadMembership(filepath.Dir(path), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a directory was read as a file")
	}
}

func TestWhatCouldNotBeSavedIsSavedLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gone", "masters.json")
	d := openDirectory(t, path)
	d.observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one"}, agreed)
	if err := d.save(); err == nil {
		t.Fatal("saved where there is no directory")
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.save(); err != nil {
		t.Fatal(err)
	}
	if again := openDirectory(t, path); len(again.contacts()) != 1 {
		t.Error("nothing was saved")
	}
}
