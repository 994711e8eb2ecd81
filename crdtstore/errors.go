package crdtstore

import (
	"errors"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Errors that callers can tell apart with errors.Is.
var (
	// ErrNotFound: no such node, VM or master.
	ErrNotFound = errors.New("not found")
	// ErrCursor: the cursor is not one of ours, or too old to resume from.
	ErrCursor = errors.New("unknown cursor")
	// ErrClosed: the store was closed.
	ErrClosed = replica.ErrClosed
	// ErrUnreachable: the other master cannot be asked now.
	ErrUnreachable = errors.New("master cannot be reached")
	// ErrJoining: the store is new and does not have all records of the others yet.
	ErrJoining = errors.New("the records of the other masters are not all here yet")
	// ErrUnavailable: the store cannot take writes now (disk full, failing). Where a
	// disk is the reason, its error is wrapped too, such as [syscall.ENOSPC].
	ErrUnavailable = replica.ErrUnavailable
	// ErrDamaged: a file of the history is missing, or does not hold what was written.
	ErrDamaged = epoch.ErrDamaged
)

// Errors that say more; match them with errors.As.
type (
	FieldError   = record.FieldError
	RefusedError = record.RefusedError
)
