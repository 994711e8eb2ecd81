package explorer

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var updateGolden = flag.Bool("update", false, "write testdata/*.golden anew")

// What one release has written, every later one reads, and writes the same.
func TestGoldenTokens(t *testing.T) {
	const secret = tokenMark + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	dir := t.TempDir()
	err := changeTokens(dir, func([]keptToken) ([]keptToken, error) {
		return []keptToken{{
			Token{ID: "8025669c", Name: "ci", CreatedAt: time.Date(2025, 10, 9, 8, 53, 20, 0, time.UTC)},
			"8025669c7e36900fdd973a9ada3676d8b5b8858ed7c2aa1daa9cc6458722c4bb",
		}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	path, file := filepath.Join(dir, tokenFile), filepath.Join("testdata", tokenFile+".golden")
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if *updateGolden {
		if err := os.WriteFile(file, written, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; write it with go test -run Golden -update", err)
	}
	if string(written) != string(kept) {
		t.Errorf("what is written has changed to\n%s\nfrom\n%s", written, kept)
	}
	if err := os.WriteFile(path, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	if name, ok, err := newTokens(dir).find(secret); err != nil || !ok || name != "ci" {
		t.Errorf("the kept token is %q, %v, %v", name, ok, err)
	}
}

// Tokens that a newer program has written let nobody in, for they may be good for less
// than this one would think, and are not overwritten.
func TestTokensOfANewerVersion(t *testing.T) {
	for _, later := range []string{
		`{"version":2,"tokens":[{"id":"a41c3d33","name":"ci","may":["list"]}]}`,
		`{"version":2,"tokens":{"a41c3d33":{}}}`,
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, tokenFile)
		if err := os.WriteFile(path, []byte(later), 0o600); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"listing":  func() error { _, err := ListTokens(dir); return err }(),
			"creating": func() error { _, _, err := CreateToken(dir, "other"); return err }(),
			"revoking": func() error { _, err := RevokeToken(dir, "ci"); return err }(),
			"asking":   func() error { _, _, err := newTokens(dir).find(tokenMark + "x"); return err }(),
		} {
			if err == nil || !strings.Contains(err.Error(), "version 2") || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if left, err := os.ReadFile(path); err != nil || string(left) != later {
			t.Errorf("the file has become %s, %v", left, err)
		}
	}
}
