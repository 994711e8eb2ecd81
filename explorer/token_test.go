package explorer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

func TestTokens(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if list, err := ListTokens(dir); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
	known := newTokens(dir)
	a, secretA, err := CreateToken(dir, "alice")
	if err != nil {
		t.Fatal(err)
	}
	b, secretB, err := CreateToken(dir, "bob")
	if err != nil {
		t.Fatal(err)
	}
	for secret, want := range map[string]string{secretA: "alice", secretB: "bob", secretA + "x": "", "": "", "hxp_": ""} {
		if name, ok, err := known.find(secret); err != nil || ok != (want != "") || name != want {
			t.Errorf("%q: %q %v %v", secret, name, ok, err)
		}
	}
	if list, err := ListTokens(dir); err != nil || len(list) != 2 || list[0] != a || list[1] != b {
		t.Error(list, err)
	}
	path := filepath.Join(dir, tokenFile)
	raw, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(raw), secretA) {
		t.Errorf("the file has the secret in it, or cannot be read: %v", err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Error(info.Mode())
	}
	if got, err := RevokeToken(dir, "alice"); err != nil || got != a {
		t.Error(got, err)
	}
	if _, ok, _ := known.find(secretA); ok {
		t.Error("a revoked token is still good")
	}
	if _, ok, _ := known.find(secretB); !ok {
		t.Error("the other one went with it")
	}
	if _, err := RevokeToken(dir, a.ID); !errors.Is(err, crdtstore.ErrNotFound) {
		t.Error(err)
	}
	if _, err := RevokeToken(dir, b.ID); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", "two\nlines", strings.Repeat("x", 129)} {
		if _, _, err := CreateToken(dir, name); err == nil {
			t.Errorf("token named %q", name)
		}
	}
	if err := os.WriteFile(path, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := known.find(secretB); ok || err == nil {
		t.Error("a broken file lets somebody in")
	}
	if _, _, err := CreateToken(dir, "carol"); err == nil {
		t.Error("a broken file was overwritten")
	}
}

func TestTokensAtOnce(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if _, _, err := CreateToken(dir, strings.Repeat("x", i+1)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if list, err := ListTokens(dir); err != nil || len(list) != 20 {
		t.Error(len(list), err)
	}
	if _, _, err := CreateToken(dir, "x"); err == nil {
		t.Error("two tokens with one name")
	}
}
