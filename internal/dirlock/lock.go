package dirlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrInUse: somebody else has the lock, in this process or in another one.
var ErrInUse = errors.New("it is in use")

// lockFile is locked where the file system locks no directories, as NFS.
const lockFile = ".lock"

// Lock is held until Close.
type Lock struct{ file *os.File }

// Take takes the lock of a directory that is there. It does not wait.
func Take(dir string) (*Lock, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = flock(f)
	if err != nil && !errors.Is(err, ErrInUse) {
		// An error of this kind says that only files that are open for writing can be locked.
		_ = f.Close()
		if f, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
			return nil, err
		}
		err = flock(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return &Lock{f}, nil
}

// Close gives the lock back.
func (l *Lock) Close() error { return l.file.Close() }

func flock(f *os.File) error {
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return ErrInUse
		default:
			return err
		}
	}
}
