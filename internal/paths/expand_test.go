package paths

import (
	"os/user"
	"path/filepath"
	"testing"
)

func TestExpand(t *testing.T) {
	const home = "/home/jürgen müller/100% $PATH"
	t.Setenv("HOME", home)
	for _, sockets := range []struct{ env, dir string }{{"", home + "/hero/var/sockets"}, {"/run/a b", "/run/a b"}, {"~/s", home + "/s"}} {
		t.Setenv("HERO_SOCKET_DIR", sockets.env)
		for path, want := range map[string]string{
			"": "", "/a b/%20/ü": "/a b/%20/ü", "rel/~": "rel/~", "~": home, "~/x": home + "/x", "~other/x": "~other/x",
			"$HERO_SOCKET_DIR": sockets.dir, "$HERO_SOCKET_DIR/x": sockets.dir + "/x", "$HERO_SOCKET_DIRS/x": "$HERO_SOCKET_DIRS/x", "$HOME/x": "$HOME/x",
		} {
			if got, err := Expand(path); err != nil || got != want {
				t.Errorf("%q with sockets in %q: %q (%v), want %q", path, sockets.env, got, err, want)
			}
		}
	}
}

func TestAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for path, want := range map[string]string{"": "", "a/../b": filepath.Join(dir, "b"), "/a/": "/a"} {
		if got, err := Absolute(path); err != nil || got != want {
			t.Errorf("%q: %q (%v), want %q", path, got, err, want)
		}
	}
}

// Without $HOME the system's list of users tells.
func TestHomeWithoutEnvironment(t *testing.T) {
	t.Setenv("HOME", "")
	u, err := user.Current()
	if err != nil || u.HomeDir == "" {
		t.Skip("this user has no home directory")
	}
	if got, err := Expand("~/x"); err != nil || got != u.HomeDir+"/x" {
		t.Errorf("%q (%v), want %q", got, err, u.HomeDir+"/x")
	}
}
