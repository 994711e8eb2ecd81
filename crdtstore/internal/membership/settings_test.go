package membership

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
)

func TestSettingsDiffer(t *testing.T) {
	mine := func() *liveness.Settings {
		return &liveness.Settings{OfflineAfter: 30 * time.Second, Retention: 720 * time.Hour, Others: []liveness.Setting{
			{Name: "aliases", Value: "none"}, {Name: "heartbeat-interval", Value: "10s"}, {Name: "require-signed", Value: "no"},
		}}
	}
	with := func(change func(*liveness.Settings)) *liveness.Settings {
		s := mine()
		change(s)
		return s
	}
	for name, c := range map[string]struct {
		there   *liveness.Settings
		version string
		want    []string
	}{
		"the same":                         {mine(), "1.4", nil},
		"of a version that tells nothing":  {nil, "", nil},
		"that tells its version only":      {nil, "1.3", []string{"version: 1.3 there, 1.4 here"}},
		"that tells no more than it knows": {&liveness.Settings{}, "1.4", nil},
		"with a setting of a later version": {with(func(s *liveness.Settings) {
			s.Others = append(s.Others, liveness.Setting{Name: "quota", Value: "7"})
		}), "1.4", nil},
		"with other limits": {with(func(s *liveness.Settings) { s.OfflineAfter, s.Retention = 1500*time.Millisecond, 90*time.Minute }), "1.4",
			[]string{"offline-after: 1.5s there, 30s here", "retention: 1h30m there, 720h here"}},
		"with other texts": {with(func(s *liveness.Settings) {
			for i := range s.Others {
				s.Others[i].Value = "x"
			}
		}), "1.4", []string{"aliases: x there, none here", "heartbeat-interval: x there, 10s here", "require-signed: x there, no here"}},
	} {
		d := New(Config{Settings: mine(), Version: "1.4"})
		got := d.differ(&member{Info: Info{Version: c.version}, settings: c.there})
		if !slices.Equal(got, c.want) {
			t.Errorf("a master %s: %q, want %q", name, got, c.want)
		}
	}
}

// What another master says of its settings is bounded, and told once when it changes.
func TestSettingsOfOthersAreBounded(t *testing.T) {
	published := &liveness.Settings{OfflineAfter: math.MaxInt64, Retention: -1}
	for i := range 1000 {
		published.Others = append(published.Others, liveness.Setting{Name: strings.Repeat("n", 1000) + fmt.Sprint(i), Value: strings.Repeat("v", 1000)})
	}
	boundSettings(published)
	if len(published.Others) > maxSettings+1 || published.OfflineAfter > maxOfflineAfter || published.Retention < 0 {
		t.Errorf("%d settings are kept, with a limit of %v", len(published.Others), published.OfflineAfter)
	}
	for _, o := range published.Others {
		if len(o.Name) > maxSettingBytes || len(o.Value) > maxSettingBytes {
			t.Fatalf("a setting of %d and %d bytes is kept", len(o.Name), len(o.Value))
		}
	}
	boundSettings(nil)
}

func TestSettingsAreToldOnce(t *testing.T) {
	g := &grid{}
	cfg := config("", g)
	cfg.Settings.OfflineAfter = time.Minute
	d, now := New(cfg), time.Now()
	look := func(limit time.Duration) {
		d.Observe(now, "m", &liveness.MasterInfo{Name: "birch", Settings: &liveness.Settings{OfflineAfter: limit}}, true)
		for range 3 {
			d.Look(now, false, nil)
		}
	}
	for _, limit := range []time.Duration{time.Minute, time.Second, time.Second, time.Minute} {
		look(limit)
	}
	want := []string{
		"the settings of birch differ from this master's: offline-after: 1s there, 1m here",
		"the settings of birch and this master's agree again",
	}
	if got := g.texts(EventSettings); !slices.Equal(got, want) {
		t.Errorf("published %q, want %q", got, want)
	}
}

func TestSettingsOfTheProgramAreChecked(t *testing.T) {
	many := map[string]string{}
	for i := range maxSettings + 1 {
		many[fmt.Sprint(i)] = "x"
	}
	for _, settings := range []map[string]string{many, {"": "x"}, {"a": strings.Repeat("x", maxSettingBytes+1)}} {
		if err := CheckSettings(settings); err == nil || !strings.Contains(err.Error(), "Settings") {
			t.Errorf("%d settings are taken: %v", len(settings), err)
		}
	}
}
