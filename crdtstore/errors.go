package crdtstore

import (
	"errors"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/backup"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/page"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/runs"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Errors that callers can tell apart with errors.Is. Each call says which of them it
// returns; [FieldError] and [RefusedError] say more and are matched with errors.As.
var (
	// ErrNotFound: no such node, VM or master.
	ErrNotFound = errors.New("not found")
	// ErrCursor: the cursor is not one of this store and run, or too old to resume from.
	ErrCursor = page.ErrCursor
	// ErrClosed: the store was closed.
	ErrClosed = replica.ErrClosed
	// ErrUnreachable: the other master cannot be asked now.
	ErrUnreachable = errors.New("master cannot be reached")
	// ErrUnavailable: the store cannot take writes now (disk full, failing). Where a
	// disk is the reason, its error is wrapped too, such as [syscall.ENOSPC]. It passes
	// by itself once the disk takes writes again.
	ErrUnavailable = replica.ErrUnavailable
	// ErrCollision: another process has the identity of this master, as after a copy of its
	// data directory was started, and that one counts: it began first, or this one has
	// yielded before. The store takes no writes.
	ErrCollision = runs.ErrCollision
	// ErrDiskHangs and ErrDiskSlow come with ErrUnavailable: the disk does not answer, or
	// takes longer than a caller waits. What was waiting may be taken later all the same.
	ErrDiskHangs = epoch.ErrHangs
	ErrDiskSlow  = replica.ErrSlow
	// ErrJoining: the store is new and does not have all records of the others yet.
	ErrJoining = errors.New("the records of the other masters are not all here yet")
	// ErrDamaged: a file of the history is missing, or does not hold what was written.
	ErrDamaged = epoch.ErrDamaged
	// ErrBackup: the file is not a whole backup, or one of a newer version.
	ErrBackup = backup.ErrUnreadable
)

type (
	// FieldError says which field of an argument cannot be taken, and what would be
	// right. Nothing was changed.
	FieldError = record.FieldError
	// RefusedError says why the sender of a report or beat may not speak for the node:
	// it was removed at that boot, or belongs to another key. Nothing was changed.
	RefusedError = record.RefusedError
)
