package crdtstore

import (
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
)

// One that others hear is not down, however long it is silent here.
func TestHeardByOthersIsNotDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDirectory(t, filepath.Join(t.TempDir(), "masters.json"))
		began := time.Now()
		hear := func(id string, countDirect ...string) {
			d.observe(time.Now(), id, &liveness.MasterInfo{Name: id, Connectivity: &liveness.Connectivity{Masters: countDirect}}, agreed)
		}
		status := func(id string) Master {
			list := shown(d, time.Now())
			return list[slices.IndexFunc(list, func(m Master) bool { return m.ID == id })]
		}
		hear("far")
		for range 60 {
			time.Sleep(time.Second)
			hear("near", "far", "self")
		}
		if m := status("far"); m.Status != MasterSuspect || !slices.Equal(m.HeardBy, []string{"near"}) || m.Reason == "" {
			t.Errorf("%+v", m)
		}
		if got := d.expired(time.Now(), time.Now(), began, 10*time.Second); len(got) > 0 {
			t.Errorf("%q expired", got)
		}
		if d.reachable("far") {
			t.Error("one that is not heard here is reachable")
		}
		hear("near", "self") // it hears it no more
		if m := status("far"); m.Status != MasterDown || len(m.HeardBy) > 0 || m.Reason != "" {
			t.Errorf("%+v", m)
		}
		hear("near", "far")
		time.Sleep(6 * time.Second) // and who would know is silent
		if m := status("far"); m.Status != MasterDown {
			t.Errorf("%+v", m)
		}
	})
}

func TestGoneMastersExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "masters.json")
		const retention = time.Hour
		d := openDirectory(t, path)
		d.observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one"}, agreed)
		d.observe(time.Now(), "m2", &liveness.MasterInfo{Name: "two"}, agreed)
		d.left("m2")
		began := time.Now()
		expired := func() []string { return d.expired(time.Now(), time.Now(), began, retention) }
		time.Sleep(59 * time.Minute)
		if got := expired(); len(got) > 0 {
			t.Errorf("%q expired", got)
		}
		// A wall clock that jumps does not count for masters that were heard.
		if got := d.expired(time.Now(), time.Now().Add(1000*time.Hour), began, retention); len(got) > 0 {
			t.Errorf("by the wall clock %q expired", got)
		}
		d.observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one"}, agreed)
		time.Sleep(2 * time.Minute)
		if got := expired(); !slices.Equal(got, []string{"m2"}) {
			t.Errorf("%q expired, want m2", got)
		}
		time.Sleep(retention)
		saved := func() *membership {
			if err := d.save(); err != nil {
				t.Error(err)
			}
			return openDirectory(t, path)
		}
		// Those of an earlier run get the time to be heard first.
		d, began = saved(), time.Now()
		if got := expired(); len(got) > 0 {
			t.Errorf("%q expired at the start", got)
		}
		time.Sleep(61 * time.Second)
		if got := expired(); !slices.Equal(got, []string{"m1", "m2"}) {
			t.Errorf("%q expired", got)
		}
		d.drop("m1")
		if again := saved(); again.has("m1") || !again.has("m2") {
			t.Error("the file is not up to date")
		}
		if d.drop("m2"); len(saved().contacts()) > 0 {
			t.Error("the last one is still in the file")
		}
	})
}

func TestClocksApartAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDirectory(t, filepath.Join(t.TempDir(), "masters.json"))
		var got []string
		for _, skew := range []time.Duration{0, 4 * time.Second, 90 * time.Minute, time.Hour, 3 * time.Second, -time.Second, -6 * time.Second} {
			time.Sleep(time.Second)
			d.observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one", Wall: time.Now().Add(skew).UnixMilli()}, agreed)
			d.skews(time.Now(), func(_, text string) { got = append(got, text) })
		}
		want := []string{
			"the clock of one is 1h30m0s ahead of this master's",
			"the clock of one and this master's agree again",
			"the clock of one is 6s behind this master's",
		}
		if !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}
