package epoch

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// All that the history keeps on disk goes through the file system that it was given,
// so that one place sees every call, and tests can stop, break and cut any of them.

func exists(in vfs.FS, path string) bool {
	_, err := in.Stat(path)
	return err == nil
}

func syncDir(in vfs.FS, path string) error {
	d, err := in.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readFile(in vfs.FS, path string) ([]byte, error) {
	f, err := in.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

// writeFile replaces a file as a whole or not at all, even when the machine stops in
// between. When it returns without error the file is on stable storage. A file is
// written by one caller at a time.
func writeFile(in vfs.FS, path string, content []byte) error {
	fresh := path + ".new"
	f, err := in.Create(fresh, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, in.Remove(fresh))
	}
	if err := in.Rename(fresh, path); err != nil {
		return errors.Join(err, in.Remove(fresh))
	}
	return syncDir(in, in.PathDir(path))
}

// list returns the names in a directory, in order; none where it is not there.
func list(in vfs.FS, dir string) ([]string, error) {
	names, err := in.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	slices.Sort(names)
	return names, err
}

// ending returns the paths in a directory whose names end in a suffix.
func ending(in vfs.FS, dir, suffix string) ([]string, error) {
	names, err := list(in, dir)
	var out []string
	for _, name := range names {
		if strings.HasSuffix(name, suffix) {
			out = append(out, in.PathJoin(dir, name))
		}
	}
	return out, err
}

// dirSize is how many bytes the files below a directory take. What vanishes while it
// is looked at does not count.
func dirSize(in vfs.FS, path string) (bytes uint64) {
	names, _ := in.List(path)
	for _, name := range names {
		name = in.PathJoin(path, name)
		switch info, err := in.Stat(name); {
		case err != nil:
		case info.IsDir():
			bytes += dirSize(in, name)
		default:
			bytes += uint64(info.Size())
		}
	}
	return bytes
}
