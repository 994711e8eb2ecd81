package p2p

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

// pins remembers which peer id was first met at an address. They are what
// stands between two masters that share no secret and a stranger who takes over
// an address. Only a person lifts a pin: by deleting it from the file.
type pins struct {
	path string

	saving sync.Mutex // held while the file is written

	mu sync.Mutex         // guards what follows
	at map[string]peer.ID // by multiaddr
}

// pinsVersion is the version of the file.
const pinsVersion = 1

// pinsFile is what the file holds.
type pinsFile struct {
	Version int                `json:"version"`
	Pins    map[string]peer.ID `json:"pins"`
}

func loadPins(path string) (*pins, error) {
	p := &pins{path: path, at: map[string]peer.ID{}}
	var f pinsFile
	_, err := atomicfile.ReadJSON(path, pinsVersion, &f)
	if err == nil && f.Pins == nil {
		err = errors.New("it has no pins")
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return p, nil
	case errors.As(err, new(*fs.PathError)):
		return nil, fmt.Errorf("pinned masters: %w", err)
	case errors.Is(err, atomicfile.ErrNewer):
		return nil, fmt.Errorf("pinned masters: %s: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("pinned masters: %s: %w; mend the file, or delete it to trust on first contact again", path, err)
	}
	p.at = f.Pins
	return p, nil
}

// replacedError is that another id is pinned at the address of a master. Most often it is
// one that has lost its data directory, and its identity with it.
type replacedError struct{ text string }

func (e *replacedError) Error() string { return e.text }

// pin records id at an address, or reports the other id that is pinned there.
func (p *pins) pin(addr string, id peer.ID) error {
	p.mu.Lock()
	was, known := p.at[addr]
	if !known {
		p.at[addr] = id
	}
	p.mu.Unlock()
	switch {
	case !known:
		return p.save()
	case was != id:
		// What to do comes first: others see only the beginning of a refusal.
		return &replacedError{fmt.Sprintf("another master was at %s before; if it was replaced on purpose, delete the address from %s here and restart this master (it was %s, and is now %s)", addr, p.path, was, id)}
	}
	return nil
}

// save writes the file. It waits for the disk, with no lock held that others need.
func (p *pins) save() error {
	p.saving.Lock()
	defer p.saving.Unlock()
	p.mu.Lock()
	b, err := json.MarshalIndent(pinsFile{pinsVersion, p.at}, "", "  ")
	p.mu.Unlock()
	if err != nil {
		return err
	}
	return atomicfile.Write(p.path, append(b, '\n'))
}
