package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
)

// A seal is the 64 bytes of the signature, then the SHA-256 of the other
// register's body, so that each register of a signed account can be verified
// on its own, wherever it travels.
const sealSize = ed25519.SignatureSize + sha256.Size

const signingDomain = "hero_explorer account v1\n"

// signedBytes is what a node signs: the domain line, the node id behind its
// length (4 bytes big endian), boot and seq (8 bytes big endian each), the
// SHA-256 of the profile's body, the SHA-256 of the VM list's body.
func signedBytes(nodeID string, v Version, profile, vms [sha256.Size]byte) []byte {
	b := make([]byte, 0, len(signingDomain)+4+len(nodeID)+16+2*sha256.Size)
	b = append(b, signingDomain...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(nodeID)))
	b = append(b, nodeID...)
	b = binary.BigEndian.AppendUint64(b, v.Boot)
	b = binary.BigEndian.AppendUint64(b, v.Seq)
	b = append(b, profile[:]...)
	return append(b, vms[:]...)
}

// Sign sets PublicKey and Signature of a complete report. The report must not
// be changed afterwards, but for Usage and UptimeS, which are not signed.
func (r *Report) Sign(key ed25519.PrivateKey) {
	r.PublicKey = key.Public().(ed25519.PublicKey)
	r.Signature = ed25519.Sign(key, r.signedBytes())
	r.Omitted = 0
}

func (r *Report) signedBytes() []byte {
	return signedBytes(r.NodeID, r.AccountVersion(), sha256.Sum256([]byte(r.Profile.encode())),
		sha256.Sum256([]byte(encodeVMs(r.VMs))))
}

// signed reports whether the report claims a signature.
func (r *Report) signed() bool { return len(r.PublicKey) > 0 || len(r.Signature) > 0 }

// verified reports whether the signature fits.
func (r *Report) verified() bool {
	return len(r.PublicKey) == ed25519.PublicKeySize && len(r.Signature) == ed25519.SignatureSize &&
		ed25519.Verify(r.PublicKey, r.signedBytes(), r.Signature)
}

// seals returns the seals of the profile and the VM register.
func (r *Report) seals() (profile, vms string) {
	p, v := sha256.Sum256([]byte(r.Profile.encode())), sha256.Sum256([]byte(encodeVMs(r.VMs)))
	return string(r.Signature) + string(v[:]), string(r.Signature) + string(p[:])
}

// Verified returns the state without the registers whose signature does not
// fit, and without claims of which nothing else is left. A claim that had no account is
// kept: its accounts were dropped by the bounds, and that it was made still counts. What it drops depends on the state alone, so all masters drop the same
// and still converge; a master can withhold what a node said, but not forge it.
// Call it on every state that comes from another master.
func (s State) Verified(nodeID string) State {
	kept := make([]Claim, 0, len(s.Claims))
	for _, c := range s.Claims {
		if c.Key != "" {
			was := c
			c = c.verified(nodeID)
			if c.isEmpty() && (!was.isEmpty() || len(c.Key) != maxKey) && c.RemovedBelow == 0 {
				continue
			}
		}
		kept = append(kept, c)
	}
	if s.Claims = kept; len(kept) == 0 {
		s.Generation = 0
	}
	return s
}

func (c Claim) verified(nodeID string) Claim {
	if len(c.Key) != ed25519.PublicKeySize {
		return Claim{}
	}
	// Both registers are mostly of one account, and carry the same signature of the
	// same bytes. It is looked at once, for that is what costs.
	var good, over []byte
	fits := func(a Account, payload func(own, other [sha256.Size]byte) []byte) bool {
		if len(a.Seal) != sealSize {
			return false
		}
		own := sha256.Sum256([]byte(a.Body))
		other := [sha256.Size]byte([]byte(a.Seal[ed25519.SignatureSize:]))
		signature, signed := []byte(a.Seal[:ed25519.SignatureSize]), payload(own, other)
		if good != nil && bytes.Equal(signature, good) && bytes.Equal(signed, over) {
			return true
		}
		if !ed25519.Verify(ed25519.PublicKey(c.Key), signed, signature) {
			return false
		}
		good, over = signature, signed
		return true
	}
	if !fits(c.Profile, func(own, other [sha256.Size]byte) []byte {
		return signedBytes(nodeID, c.Profile.Version, own, other)
	}) {
		c.Profile = Account{}
	}
	if !fits(c.VMs, func(own, other [sha256.Size]byte) []byte {
		return signedBytes(nodeID, c.VMs.Version, other, own)
	}) {
		c.VMs = Account{}
	}
	return c
}
