package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

// Errors that callers can tell apart with errors.Is.
var (
	// ErrExposed: other users of the machine can read or write the key file.
	ErrExposed = errors.New("key file is open to other users")
	// ErrCorrupt: the file is there but does not hold one ed25519 private key.
	ErrCorrupt = errors.New("key file is not an ed25519 private key in PEM (PKCS #8)")
)

// Identity is an ed25519 key and the id that follows from it. It does not
// change; all methods may be called concurrently.
type Identity struct {
	key    ed25519.PrivateKey
	libp2p crypto.PrivKey
	id     peer.ID
}

// Load reads the key file at path. Where there is none, it makes a key and the
// file, and the directories above it (mode 0700); when it returns, the file is
// on stable storage. Of several processes that create one file at once, all
// return the same identity. Errors: [ErrExposed], [ErrCorrupt], those of the
// file system. An existing file is never changed.
func Load(path string) (*Identity, error) {
	key, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = create(path); err == nil || errors.Is(err, fs.ErrExist) {
			key, err = read(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return FromKey(key)
}

// FromKey makes the identity of a key that is kept elsewhere.
func FromKey(key ed25519.PrivateKey) (*Identity, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("identity: an ed25519 private key has %d bytes, got %d",
			ed25519.PrivateKeySize, len(key))
	}
	k, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return &Identity{key: key, libp2p: k, id: id}, nil
}

// ID is the libp2p peer id in its text form, "12D3KooW" and 44 characters.
func (i *Identity) ID() string { return i.id.String() }

// PeerID is the libp2p peer id.
func (i *Identity) PeerID() peer.ID { return i.id }

// PrivateKey is the key, for signing. The bytes are shared: do not change them.
func (i *Identity) PrivateKey() ed25519.PrivateKey { return i.key }

// Libp2pKey is the key in the form that a libp2p host takes.
func (i *Identity) Libp2pKey() crypto.PrivKey { return i.libp2p }

// create writes a new key to a file that must not be there yet.
func create(path string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	text, err := marshal(key)
	if err != nil {
		return err
	}
	if err := atomicfile.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Create(path, text)
}
