package settings_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/settings"
)

type mode string

type config struct {
	Dir    string
	Mode   mode
	Every  time.Duration
	Signed bool
	Degree float64
	Peers  []string
	Labels map[string]string
	Secret string
}

func defaults() config {
	return config{Dir: "~/x", Mode: "auto", Every: 720 * time.Hour, Peers: []string{"a"}}
}

func newSet(c *config) (*settings.Set, *pflag.FlagSet) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s := settings.New(flags)
	s.Add(
		settings.Setting{Name: "data-dir", Env: "T_DIR", Value: &c.Dir, Usage: "a `directory`"},
		settings.Setting{Name: "mode", Env: "T_MODE", Value: &c.Mode},
		settings.Setting{Name: "every", Env: "T_EVERY", Value: &c.Every},
		settings.Setting{Name: "signed", Env: "T_SIGNED", Value: &c.Signed},
		settings.Setting{Name: "degree", Env: "T_DEGREE", Value: &c.Degree},
		settings.Setting{Name: "peers", Env: "T_PEERS", Value: &c.Peers},
		settings.Setting{Name: "labels", Env: "T_LABELS", Value: &c.Labels},
		settings.Setting{Name: "secret", Env: "T_SECRET", Value: &c.Secret, OnlyEnv: true},
	)
	s.ConfigFile("T_CONFIG")
	return s, flags
}

// load returns the configuration as the three sources make it.
func load(t *testing.T, args []string, env map[string]string, file string) (config, *settings.Set, error) {
	t.Helper()
	c := defaults()
	s, flags := newSet(&c)
	if file != "" {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c, s, func() error {
		err := s.Load(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		return err
	}()
}

func TestPrecedence(t *testing.T) {
	type env = map[string]string
	for _, c := range []struct {
		name string
		args []string
		env  env
		file string
		want func(*config)
	}{
		{"defaults", nil, nil, "", func(*config) {}},
		{"file", nil, nil, "data-dir: f\nmode: off\nevery: 5s\nsigned: true\ndegree: -1.5\npeers: [b, \"c,d\"]\nlabels:\n  a: b=c\n  n: 007\n", func(c *config) {
			*c = config{"f", "off", 5 * time.Second, true, -1.5, []string{"b", "c,d"}, map[string]string{"a": "b=c", "n": "007"}, ""}
		}},
		{"file in other shapes", nil, nil, "# comment\n\npeers: b, c\nlabels: a=b,n=\ndata-dir: \"\"\n", func(c *config) {
			c.Dir, c.Peers, c.Labels = "", []string{"b", "c"}, map[string]string{"a": "b", "n": ""}
		}},
		{"file of comments", nil, nil, "# nothing\n", func(*config) {}},
		{"env over file", nil, env{"T_DIR": "e", "T_PEERS": "x,y,", "T_EVERY": "1m", "T_SECRET": "s"}, "data-dir: f\npeers: [b]\nevery: 5s\n", func(c *config) {
			c.Dir, c.Peers, c.Every, c.Secret = "e", []string{"x", "y"}, time.Minute, "s"
		}},
		{"empty env", nil, env{"T_DIR": "", "T_PEERS": "", "T_EVERY": "", "T_SIGNED": ""}, "every: 5s\nsigned: true\n", func(c *config) {
			c.Dir, c.Peers, c.Every, c.Signed = "", nil, 5*time.Second, true
		}},
		{
			"flag over all",
			[]string{"--data-dir=", "--peers", "p", "--peers=q,r", "--signed", "--labels=a=1", "--labels", "b=2"},
			env{"T_DIR": "e", "T_PEERS": "x", "T_SIGNED": "false", "T_LABELS": "z=1"},
			"data-dir: f\npeers: [b]\n",
			func(c *config) {
				c.Dir, c.Peers, c.Signed, c.Labels = "", []string{"p", "q", "r"}, true, map[string]string{"a": "1", "b": "2"}
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := defaults()
			c.want(&want)
			got, _, err := load(t, c.args, c.env, c.file)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		file string
		want string // part of the message
	}{
		{nil, "mode: a\ndata_dir: x\n", `:2: unknown key "data_dir"; known are data-dir, degree,`},
		{nil, "secret: x\n", `:1: unknown key "secret"`},
		{nil, "config: x\n", `:1: unknown key "config"`},
		{nil, "mode: a\nmode: b\n", `mode`},
		{nil, "mode:\n", `has no value`},
		{nil, "mode: [a]\n", `must be a single value`},
		{nil, "every: 5\n", `"5" is not a duration`},
		{nil, "signed: maybe\n", `"maybe" is neither`},
		{nil, "degree: north\n", `not a number`},
		{nil, "peers: {a: b}\n", `must be a list`},
		{nil, "peers: [[a]]\n", `no single value`},
		{nil, "labels: {a: {b: c}}\n", `no single value`},
		{nil, "labels: [a]\n", `"a" is not name=value`},
		{nil, "mode: &x a\n", `anchors`},
		{nil, "mode: a\n---\nmode: b\n", `several documents`},
		{nil, "- a\n", `must be keys`},
		{nil, "just text\n", `must be keys`},
		{nil, "a: b: c\n", `:1`},
		{nil, "{\n", ``},
		{map[string]string{"T_EVERY": "soon"}, "", `T_EVERY: "soon" is not a duration`},
		{map[string]string{"T_LABELS": "=x"}, "", `T_LABELS: "=x" is not name=value`},
		{map[string]string{"T_EVERY": "1s"}, "every: soon\n", `"soon" is not a duration`},
		{map[string]string{"T_CONFIG": "/does/not/exist.yaml"}, "", `T_CONFIG: open /does/not/exist.yaml`},
	} {
		_, _, err := load(t, nil, c.env, c.file)
		var usage *settings.UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %q: got %v, want %q in it", c.env, c.file, err, c.want)
		}
		if settings.ExitCode(err) != settings.ExitUsage {
			t.Errorf("%v: exit code %d", err, settings.ExitCode(err))
		}
	}
}

func TestPlace(t *testing.T) {
	_, s, err := load(t, []string{"--mode=x"}, map[string]string{"T_DIR": "e"}, "every: 5s\nlabels: {a: b}\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"mode": "--mode", "data-dir": "T_DIR", "every": "every in ", "degree": "--degree",
		"secret": "T_SECRET", "labels.a": "labels in ", "other": "other",
	} {
		if got := s.Place(name); !strings.HasPrefix(got, want) {
			t.Errorf("Place(%q) = %q", name, got)
		}
	}
	for name, want := range map[string]settings.Source{
		"mode": settings.FromFlag, "data-dir": settings.FromEnv, "every": settings.FromFile, "degree": settings.FromDefault,
	} {
		if got := s.Source(name); got != want {
			t.Errorf("Source(%q) = %v", name, got)
		}
	}
}

func TestHelpShowsDefaultsAndEnvironment(t *testing.T) {
	c := defaults()
	_, flags := newSet(&c)
	help := flags.FlagUsages()
	for _, want := range []string{
		`--data-dir directory`, `[$T_DIR] (default "~/x")`, `[$T_EVERY] (default 720h)`, `[$T_PEERS] (default a)`,
		"--signed  ", `--labels name=value,...`, `[$T_CONFIG]`,
	} {
		if !strings.Contains(help, want) {
			t.Errorf("%q is missing in\n%s", want, help)
		}
	}
	if strings.Contains(help, "T_SECRET") {
		t.Error("the secret has a flag")
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add("data-dir: x\npeers: [a, b]\nlabels: {a: b}\n")
	f.Add("mode: |\n  x\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := defaults()
		s, flags := newSet(&c)
		if err := flags.Parse([]string{"--config", path}); err != nil {
			t.Fatal(err)
		}
		_ = s.Load(func(string) (string, bool) { return "", false })
	})
}
