package compute

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"
	"time"
)

// State is what a VM does right now.
type State string

// The states of a VM. Starting lasts for as long as the driver takes to boot a
// new VM; Deleted is seen only in the answer to delete_vm.
const (
	Starting State = "starting"
	Running  State = "running"
	Stopped  State = "stopped"
	Deleted  State = "deleted"
)

// VM is a virtual machine, without its secret.
type VM struct {
	Summary
	Image     string    `json:"image"`
	SliceSID  string    `json:"slice_sid,omitempty"` // as the caller gave it
	CreatedAt time.Time `json:"created_at"`
}

// Summary is the part of a VM that anyone may see.
type Summary struct {
	SID    string `json:"sid"`
	Name   string `json:"name"`
	State  State  `json:"state"`
	CPU    uint64 `json:"cpu"`    // virtual cores
	Memory uint64 `json:"memory"` // bytes
	IP     string `json:"ip,omitempty"`
}

// lock is what is kept of a VM's secret: nothing when the secret is empty, else
// a hash, salted with the VM's sid so that equal secrets do not look equal in
// the state file.
type lock string

func newLock(sid, secret string) lock {
	if secret == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(sid + "\x00" + secret))
	return lock(hex.EncodeToString(sum[:]))
}

// opens reports whether the secret fits, in a time that does not depend on how
// much of it does.
func (l lock) opens(sid, secret string) bool {
	return l == "" || subtle.ConstantTimeCompare([]byte(l), []byte(newLock(sid, secret))) == 1
}

func newSID() string {
	return "vm-" + strings.ToLower(rand.Text()[:16])
}
