package membership

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
		g := &grid{}
		cfg := config(filepath.Join(t.TempDir(), "masters.json"), g)
		cfg.Settings.Retention = 10 * time.Second
		d := load(t, cfg)
		hear := func(id string, countDirect ...string) {
			d.Observe(time.Now(), id, &liveness.MasterInfo{Name: id, Connectivity: &liveness.Connectivity{Masters: countDirect}}, true)
		}
		status := func(id string) Member {
			list := d.Members(time.Now())
			return list[slices.IndexFunc(list, func(m Member) bool { return m.ID == id })]
		}
		hear("far")
		for range 60 {
			time.Sleep(time.Second)
			hear("near", "far", "self")
		}
		if m := status("far"); m.Status != Suspect || !slices.Equal(m.HeardBy, []string{"near"}) {
			t.Errorf("%+v", m)
		}
		if got := d.expired(time.Now()); len(got) > 0 {
			t.Errorf("%q expired", got)
		}
		if alive(d, "far") {
			t.Error("one that is not heard here is reachable")
		}
		hear("near", "self") // it hears it no more
		if m := status("far"); m.Status != Down || len(m.HeardBy) > 0 {
			t.Errorf("%+v", m)
		}
		hear("near", "far")
		time.Sleep(6 * time.Second) // and who would know is silent
		if m := status("far"); m.Status != Down {
			t.Errorf("%+v", m)
		}
	})
}

func TestGoneMastersExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, ahead := filepath.Join(t.TempDir(), "masters.json"), time.Duration(0)
		const retention = time.Hour
		g := &grid{}
		begin := func() *Table {
			cfg := config(path, g)
			cfg.Wall = func() time.Time { return time.Now().Add(ahead) }
			return load(t, cfg)
		}
		d := begin()
		d.Observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one"}, true)
		d.Observe(time.Now(), "m2", &liveness.MasterInfo{Name: "two"}, true)
		d.Left(time.Now(), "m2")
		expired := func() []string {
			g.forgotten = nil
			d.Look(time.Now(), false, nil)
			return g.forgotten
		}
		time.Sleep(59 * time.Minute)
		if got := expired(); len(got) > 0 {
			t.Errorf("%q expired", got)
		}
		// A wall clock that jumps does not count for masters that were heard.
		ahead = 1000 * time.Hour
		if got := expired(); len(got) > 0 {
			t.Errorf("by the wall clock %q expired", got)
		}
		ahead = 0
		d.Observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one"}, true)
		time.Sleep(2 * time.Minute)
		if got := expired(); !slices.Equal(got, []string{"m2"}) {
			t.Errorf("%q expired, want m2", got)
		}
		if want := []string{"two has been gone for more than 1h0m0s and is forgotten"}; !slices.Equal(g.texts(EventForgotten), want) {
			t.Errorf("published %q, want %q", g.published, want)
		}
		saved := func() *Table {
			if err := d.Save(); err != nil {
				t.Error(err)
			}
			return begin()
		}
		if again := saved(); again.Has("m2") || !again.Has("m1") {
			t.Error("the file is not up to date")
		}
		// Those of an earlier run get the time to be heard first.
		time.Sleep(retention)
		d = saved()
		if got := expired(); len(got) > 0 {
			t.Errorf("%q expired at the start", got)
		}
		time.Sleep(61 * time.Second)
		if got := expired(); !slices.Equal(got, []string{"m1"}) {
			t.Errorf("%q expired", got)
		}
		if len(saved().IDs()) > 0 {
			t.Error("the last one is still in the file")
		}
	})
}

func TestClocksApartAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &grid{}
		d := load(t, config(filepath.Join(t.TempDir(), "masters.json"), g))
		for _, skew := range []time.Duration{0, 4 * time.Second, 90 * time.Minute, time.Hour, 3 * time.Second, -time.Second, -6 * time.Second} {
			time.Sleep(time.Second)
			d.Observe(time.Now(), "m1", &liveness.MasterInfo{Name: "one", Wall: time.Now().Add(skew).UnixMilli()}, true)
			d.Look(time.Now(), false, nil)
		}
		want := []string{
			"the clock of one is 1h30m0s ahead of this master's",
			"the clock of one and this master's agree again",
			"the clock of one is 6s behind this master's",
		}
		if got := g.texts(EventClock); !slices.Equal(got, want) {
			t.Errorf("published %q, want %q", got, want)
		}
	})
}
