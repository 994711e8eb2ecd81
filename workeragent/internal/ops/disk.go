package ops

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// disk is what a log needs of a file system.
type disk interface {
	read(path string) ([]byte, error)
	create(path string) (file, error) // for writing; what is there is emptied
	link(old, new string) error
	rename(old, new string) error
	remove(path string) error
	syncDir(path string) error // makes names in the directory of path survive a power cut
}

type file interface {
	io.WriteCloser
	Sync() error
}

// osDisk is the file system of the machine.
type osDisk struct{}

func (osDisk) read(path string) ([]byte, error) { return os.ReadFile(path) }
func (osDisk) link(old, new string) error       { return os.Link(old, new) }
func (osDisk) rename(old, new string) error     { return os.Rename(old, new) }
func (osDisk) remove(path string) error         { return os.Remove(path) }

func (osDisk) create(path string) (file, error) {
	// One that a crash left behind would keep its mode.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func (osDisk) syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
