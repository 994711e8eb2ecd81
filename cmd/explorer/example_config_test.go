package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer"
)

const example = "explorer.example.yaml"

// commentedOut matches what is configuration in the example once the # is
// taken away: keys, and the elements of lists and tables below them. Prose has
// exactly one space, or more than two, behind the #.
var commentedOut = regexp.MustCompile(`(?m)^#(  \S.*|[a-z][a-z-]*:.*)$`)

// loadExample loads the example, with everything that is commented out or as
// it is.
func loadExample(t *testing.T, all bool) *master {
	t.Helper()
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	if all {
		text = commentedOut.ReplaceAll(text, []byte("$1"))
	}
	path := filepath.Join(t.TempDir(), "explorer.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	m := newMaster(pflag.NewFlagSet("", pflag.ContinueOnError))
	if err := m.load(func(name string) (string, bool) { return path, name == "EXPLORER_CONFIG" }); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestExampleConfigChangesNothing(t *testing.T) {
	want := explorer.DefaultConfig()
	want.Version = programVersion()
	if got := loadExample(t, false).cfg; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestExampleConfigIsComplete(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, line := range commentedOut.FindAllStringSubmatch(string(text), -1) {
		if key, _, ok := strings.Cut(line[1], ":"); ok && key[0] != ' ' {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	if want := newMaster(flags).set.Keys(); !slices.Equal(keys, want) {
		t.Errorf("the example has the keys %q\nwant %q", keys, want)
	}
	env := regexp.MustCompile(`\[\$(\w+)\]`)
	flags.VisitAll(func(f *pflag.Flag) {
		name := env.FindStringSubmatch(f.Usage)
		if name == nil {
			t.Errorf("--%s has no environment name in its help: %s", f.Name, f.Usage)
		} else if f.Name != "config" && !strings.Contains(string(text), "["+name[1]) {
			t.Errorf("the example does not name %s", name[1])
		}
	})
}

// Where the example shows defaults, they are the defaults.
func TestExampleConfigShowsDefaults(t *testing.T) {
	want, got := explorer.DefaultConfig(), loadExample(t, true).cfg
	want.Version = got.Version
	if got.Name != "alpha" || len(got.PeerMasters) != 3 || len(got.Advertise) != 3 || len(got.Aliases) != 1 || len(got.ProxyMethods) != 1 {
		t.Errorf("the examples are not read: %+v", got)
	}
	want.Name, want.PeerMasters, want.Advertise, want.Aliases, want.ProxyMethods = got.Name, got.PeerMasters, got.Advertise, got.Aliases, got.ProxyMethods
	want.MeshAddr, want.EdgeAddr, want.ClusterSecretFile = got.MeshAddr, got.EdgeAddr, got.ClusterSecretFile
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}
