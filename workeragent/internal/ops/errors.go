package ops

import (
	"errors"
	"fmt"
	"time"
)

// Errors of [Journal.Do]. They are wrapped; use errors.Is.
var (
	// ErrOtherCall: the id belongs to an operation with another fingerprint.
	// Nothing was run.
	ErrOtherCall = errors.New("the id was used for another call")
	// ErrUnknown: the operation began, and its answer is lost for good. It may
	// have run, and will not run again.
	ErrUnknown = errors.New("the operation was begun, and its answer is lost")
	// ErrTooLarge: the operation ran, and its answer was too long to be kept.
	ErrTooLarge = errors.New("the operation was carried out, and its answer was too long to be kept")
	// ErrUnsaved: the operation ran, but its answer cannot be saved now. A
	// repetition gets the answer once the disk takes it.
	ErrUnsaved = errors.New("the operation was carried out, but its answer cannot be saved")
	// ErrDisk: the operation cannot be written down, and was not run.
	ErrDisk = errors.New("the operation cannot be written down")
	// ErrFull: no further operation can be remembered, and it was not run. A
	// [*WaitError] says when to come again.
	ErrFull = errors.New("no further operations can be remembered")
	// ErrDamaged: records are lost, so it is not known whether the operation ran
	// before; it was not run now. A [*WaitError] says when to come again.
	ErrDamaged = errors.New("the memory of operations was damaged")
	// ErrFresh: the Journal has only begun to remember, so it is not known whether the
	// operation, which the caller asks for again, ran before that; it was not run now. A
	// [*WaitError] says when to come again.
	ErrFresh = errors.New("the memory of operations is new")
	// ErrClosed: the Journal was closed. Nothing was run.
	ErrClosed = errors.New("the memory of operations is closed")

	// ErrNewer: the file was written by a newer program, and was left as it is.
	ErrNewer = errors.New("written by a newer program")

	// errNotRun marks errors of NotRun.
	errNotRun = errors.New("the operation was not run")
)

// WaitError says for how long an error lasts.
type WaitError struct {
	Err   error // ErrFull, ErrDamaged or ErrFresh
	After time.Duration
}

func (e *WaitError) Error() string {
	return fmt.Sprintf("%v; try again in %v", e.Err, e.After.Round(time.Second))
}

func (e *WaitError) Unwrap() error { return e.Err }

type notRunError struct{ err error }

// NotRun marks the error of an operation that certainly did nothing, not even in
// part. The operation is then forgotten: whoever waits gets the error, and a later
// caller may run it.
func NotRun(err error) error { return &notRunError{err} }

func (e *notRunError) Error() string { return e.err.Error() }

func (e *notRunError) Unwrap() error { return e.err }

func (e *notRunError) Is(target error) bool { return target == errNotRun }
