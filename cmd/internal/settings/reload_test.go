package settings

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/spf13/pflag"
)

type reloaded struct {
	Name  string
	Peers []string
	Names map[string]string
	Fast  bool
	Log   Log
}

func newReloaded() (*reloaded, *Set, *pflag.FlagSet) {
	r := &reloaded{Log: DefaultLog()}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	set := New(flags)
	set.Add(
		Setting{Name: "name", Env: "NAME", Value: &r.Name}, Setting{Name: "peers", Env: "PEERS", Value: &r.Peers},
		Setting{Name: "names", Value: &r.Names}, Setting{Name: "fast", Value: &r.Fast},
	)
	set.Add(r.Log.Settings("")...)
	set.ConfigFile("CONFIG")
	return r, set, flags
}

// What flags gave stays, and what the file says by now is taken.
func TestAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := func(name string) (string, bool) { return file, name == "CONFIG" }
	write("log-level: warn\nname: file\n")
	before, set, flags := newReloaded()
	if err := flags.Parse([]string{"--peers=a,b", "--peers=c", "--names=x=1,y=2", "--fast"}); err != nil {
		t.Fatal(err)
	}
	if err := set.Load(env); err != nil {
		t.Fatal(err)
	}
	write("log-level: debug\nname: other\npeers: [d]\n")
	now, nowSet, _ := newReloaded()
	if err := errors.Join(nowSet.Again(set), nowSet.Load(env)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(now.Peers, before.Peers) || now.Names["y"] != "2" || !now.Fast || now.Name != "other" || now.Log.Level != "debug" {
		t.Errorf("before %+v, now %+v", before, now)
	}
	if got := set.Changed(nowSet, "log-level"); !slices.Equal(got, []string{"name"}) {
		t.Errorf("changed: %v, want the name alone", got)
	}
}

// The level of a logger that is in use changes; one that does not exist changes nothing.
func TestSetLevel(t *testing.T) {
	var out bytes.Buffer
	l := DefaultLog()
	log, err := l.Logger(&out)
	if err != nil {
		t.Fatal(err)
	}
	with := log.With(slog.String("a", "b")) // as parts of a program hold one
	for _, c := range []struct {
		level string
		bad   bool
		says  bool
	}{{level: "info"}, {level: "debug", says: true}, {level: "loud", bad: true, says: true}, {level: "error"}} {
		if err := l.SetLevel(c.level); (err != nil) != c.bad {
			t.Errorf("%s: %v", c.level, err)
		}
		out.Reset()
		with.Debug("x")
		if (out.Len() > 0) != c.says {
			t.Errorf("%s: said %q", c.level, &out)
		}
	}
}
