package atomicfile

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// Write replaces a file, whose mode is 0600 from then on, as a whole or not at all.
func Write(path string, content []byte) error { return write(machine{}, path, content) }

// Create makes a file with mode 0600 that must not be there yet: of several processes that
// try, one succeeds, and the others get fs.ErrExist.
func Create(path string, content []byte) error { return create(machine{}, path, content) }

// MkdirAll makes a directory and those above it that are missing.
func MkdirAll(path string, mode fs.FileMode) error { return mkdirAll(machine{}, path, mode) }

func write(on disk, path string, content []byte) error {
	tmp, err := spill(on, path, content)
	if err != nil {
		return err
	}
	if err := on.rename(tmp, path); err != nil {
		return errors.Join(err, on.remove(tmp))
	}
	return on.syncDir(filepath.Dir(path))
}

// A link fails where the name is taken, other than a rename.
func create(on disk, path string, content []byte) error {
	tmp, err := spill(on, path, content)
	if err != nil {
		return err
	}
	if err := errors.Join(on.link(tmp, path), on.remove(tmp)); err != nil {
		return err
	}
	return on.syncDir(filepath.Dir(path))
}

// spill writes the content to a new file beside the path, and brings it to stable storage.
func spill(on disk, path string, content []byte) (name string, err error) {
	f, err := on.createTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", err
	}
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, on.remove(f.Name()))
	}
	return f.Name(), nil
}

func mkdirAll(on disk, path string, mode fs.FileMode) error {
	path = filepath.Clean(path)
	switch isDir, err := on.isDir(path); {
	case err == nil && isDir:
		return nil
	case err == nil:
		return &fs.PathError{Op: "mkdir", Path: path, Err: errors.New("it is there and is no directory")}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	above := filepath.Dir(path)
	if above != path {
		if err := mkdirAll(on, above, mode); err != nil {
			return err
		}
	}
	if err := on.mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also where another process made it, which may not have come as far as this.
	if err := on.syncDir(above); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil // names can be made in a directory that must not be read
}
