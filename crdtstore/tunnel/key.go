package tunnel

import (
	"crypto/ed25519"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ID returns the id, in text form, of the peer that has an ed25519 key: what
// HostConfig.Admit is given, and what the public key in a node's record makes.
func ID(public []byte) (string, error) {
	if len(public) != ed25519.PublicKeySize {
		return "", fmt.Errorf("a key has %d bytes, not %d", ed25519.PublicKeySize, len(public))
	}
	pub, err := crypto.UnmarshalEd25519PublicKey(public)
	if err != nil {
		return "", err
	}
	id, err := peer.IDFromPublicKey(pub)
	return id.String(), err
}
