package compute

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// stateVersion is the format of the state file.
const stateVersion = 1

// maxStateBytes bounds what is read at start: several times what MaxVMs need.
const maxStateBytes = 16 << 20

// savedVM is a VM in the state file, with the hash of its secret.
type savedVM struct {
	VM
	Lock lock `json:"lock,omitempty"`
}

type savedState struct {
	Version int       `json:"version"`
	VMs     []savedVM `json:"vms"`
}

// stateFile keeps the VMs on disk. Saves that wait for one another become one.
type stateFile struct {
	path   string
	asked  atomic.Uint64 // changes that asked to be saved
	mu     sync.Mutex
	onDisk uint64 // changes that are saved; guarded by mu
}

// load returns the saved VMs, none when there is no file yet.
func (f *stateFile) load() ([]savedVM, error) {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxStateBytes {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are expected", f.path, info.Size(), maxStateBytes)
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return nil, err
	}
	var st savedState
	if err := json.Unmarshal(data, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("%s has version %d, this program knows version %d", f.path, st.Version, stateVersion)
	}
	return st.VMs, nil
}

// save returns when all that was changed before the call is on disk.
func (f *stateFile) save(snapshot func() []savedVM) error {
	mine := f.asked.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.onDisk >= mine {
		return nil // whoever held the lock took this change along
	}
	upTo := f.asked.Load()
	data, err := json.MarshalIndent(savedState{Version: stateVersion, VMs: snapshot()}, "", "\t")
	if err != nil {
		return err
	}
	if err := writeFile(f.path, append(data, '\n')); err != nil {
		return err
	}
	f.onDisk = upTo
	return nil
}

// writeFile replaces the file in one step, so that a crash leaves the old or the
// new one.
func writeFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Sync(); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
