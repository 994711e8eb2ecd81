package epoch

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// newer remembers values that this program cannot read because a newer one has
// written them. Where that was this master itself, before its program was replaced by
// an older one, the history is not opened: much may be missing from it without a word.
// What another master sends has a place in the history and is stored; but since this
// master cannot tell what it would lose with an epoch that holds such a state, it
// deletes none.
type newer struct{ own, any atomic.Pointer[error] }

// note remembers that the value of a key cannot be read, if that is why.
func (n *newer) note(master, key string, err error) {
	if !errors.Is(err, record.ErrNewer) {
		return
	}
	err = fmt.Errorf("%s in the history: %w", key, err)
	n.any.CompareAndSwap(nil, &err)
	if writer := key[strings.LastIndexByte(key, '/')+1:]; strings.HasPrefix(writer, master+".") {
		n.own.CompareAndSwap(nil, &err)
	}
}

// first returns what was noted first, or nil.
func first(noted *atomic.Pointer[error]) error {
	if err := noted.Load(); err != nil {
		return *err
	}
	return nil
}
