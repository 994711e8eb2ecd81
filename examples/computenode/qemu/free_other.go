//go:build !linux

package qemu

import (
	"errors"
	"os"
)

// freeStart needs a call that only Linux has.
func freeStart(*os.File, int64) error { return errors.ErrUnsupported }
