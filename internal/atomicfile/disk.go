package atomicfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// disk is what this package needs of a file system. Its tests cut the power of another one.
type disk interface {
	createTemp(dir, pattern string) (file, error) // as os.CreateTemp
	link(from, to string) error
	rename(from, to string) error
	remove(path string) error
	mkdir(path string, mode fs.FileMode) error
	isDir(path string) (bool, error) // follows links
	syncDir(path string) error
}

type file interface {
	io.WriteCloser
	Name() string
	Sync() error
}

// machine is the file system of the machine.
type machine struct{}

func (machine) createTemp(dir, pattern string) (file, error) { return os.CreateTemp(dir, pattern) }
func (machine) link(from, to string) error                   { return os.Link(from, to) }
func (machine) rename(from, to string) error                 { return os.Rename(from, to) }
func (machine) remove(path string) error                     { return os.Remove(path) }
func (machine) mkdir(path string, mode fs.FileMode) error    { return os.Mkdir(path, mode) }

func (machine) isDir(path string) (bool, error) {
	info, err := os.Stat(path)
	return err == nil && info.IsDir(), err
}

func (machine) syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // a file system that has nothing to sync there
	}
	return errors.Join(err, d.Close())
}
