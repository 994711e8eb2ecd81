package identity_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
)

func ExampleLoad() {
	dir, _ := os.MkdirTemp("", "identity")
	defer os.RemoveAll(dir)

	first, err := identity.Load(filepath.Join(dir, "key.pem"))
	if err != nil {
		fmt.Println(err)
		return
	}
	again, _ := identity.Load(filepath.Join(dir, "key.pem"))
	fmt.Println(first.ID()[:8], first.ID() == again.ID())
	// Output: 12D3KooW true
}

func TestLoadCreates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "er", "key.pem")
	id, err := identity.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode is %v, want 0600", info.Mode())
	}
	if info, _ := os.Stat(filepath.Dir(path)); info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the directory is %v, want 0700", info.Mode())
	}
	names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	pub := id.PrivateKey().Public().(ed25519.PublicKey)
	if !ed25519.Verify(pub, []byte("x"), ed25519.Sign(id.PrivateKey(), []byte("x"))) {
		t.Error("the key does not sign")
	}
	decoded, err := peer.Decode(id.ID())
	if err != nil || decoded != id.PeerID() || !decoded.MatchesPrivateKey(id.Libp2pKey()) {
		t.Errorf("id %s does not belong to the key (%v)", id.ID(), err)
	}
	raw, _ := id.Libp2pKey().GetPublic().Raw()
	if !bytes.Equal(raw, pub) {
		t.Error("the libp2p key is another key")
	}
}

func TestLoadConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	ids := make([]string, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			id, err := identity.Load(path)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = id.ID()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("different identities: %v", ids)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	good := newKeyFile(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	otherKey := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})

	for _, c := range []struct {
		name string
		text []byte
		mode os.FileMode
		want error
		says string
	}{
		{"group readable", good, 0o640, identity.ErrExposed, "chmod 600"},
		{"world readable", good, 0o604, identity.ErrExposed, "0604"},
		{"empty", nil, 0o600, identity.ErrCorrupt, "empty"},
		{"cut off", good[:len(good)/2], 0o600, identity.ErrCorrupt, "block"},
		{"not PEM", []byte("secret"), 0o600, identity.ErrCorrupt, "block"},
		{"flipped", flip(good), 0o600, identity.ErrCorrupt, ""},
		{"two keys", append(bytes.Clone(good), good...), 0o600, identity.ErrCorrupt, "follows"},
		{"another kind of key", otherKey, 0o600, identity.ErrCorrupt, "ecdsa"},
		{"huge", bytes.Repeat([]byte("x"), 1<<20), 0o600, identity.ErrCorrupt, "larger"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key.pem")
			if err := os.WriteFile(path, c.text, c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := identity.Load(path)
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %q should say %q and the path", err, c.says)
			}
			if now, _ := os.ReadFile(path); !bytes.Equal(now, c.text) {
				t.Error("the file was changed")
			}
		})
	}
	t.Run("directory", func(t *testing.T) {
		if _, err := identity.Load(t.TempDir()); !errors.Is(err, identity.ErrCorrupt) {
			t.Errorf("error %v, want %v", err, identity.ErrCorrupt)
		}
	})
}

func newKeyFile(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.pem")
	if _, err := identity.Load(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// flip damages the algorithm identifier in the middle of the first line.
func flip(pemText []byte) []byte {
	out := bytes.Clone(pemText)
	at := bytes.IndexByte(out, '\n') + 10
	if out[at]++; out[at] == 'Z'+1 || out[at] == 'z'+1 {
		out[at] = 'A'
	}
	return out
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = identity.Load(path) // must not panic
		if now, _ := os.ReadFile(path); !bytes.Equal(now, text) {
			t.Error("the file was changed")
		}
	})
}
