package qemu

import (
	"os"
	"syscall"
)

// The modes of fallocate(2).
const (
	keepSize  = 0x01 // FALLOC_FL_KEEP_SIZE
	punchHole = 0x02 // FALLOC_FL_PUNCH_HOLE
)

// freeStart makes a hole of the first n bytes, so that they take no disk and all
// others stay where they are.
func freeStart(f *os.File, n int64) error {
	return syscall.Fallocate(int(f.Fd()), keepSize|punchHole, 0, n)
}
