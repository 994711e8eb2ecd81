package ops

import (
	"fmt"
	"log/slog"
	"time"
)

// Options bound a Journal. The zero Options are good.
type Options struct {
	// Age is how long an operation is remembered after its end. 0: 24 h.
	Age time.Duration
	// MinAge is how long it is remembered even where there is no room; new ones
	// are refused instead. It has to be longer than callers repeat an operation.
	// At most Age. 0: 10 min.
	MinAge time.Duration
	// MaxOps is how many operations are remembered, those that run included. One
	// takes about 300 bytes of memory besides its answer. MaxOps in MinAge is the
	// rate that can be kept up. 0: 50,000, which is 83 a second.
	MaxOps int
	// MaxBytes bounds what ids and answers take, in memory and, about three times
	// as much, on disk. Answers of operations that run already may exceed it.
	// 0: 64 MiB.
	MaxBytes int64
	// MaxAnswer is how many bytes an answer may have to be kept. Of a longer one
	// only those who wait for it get to see it. 0: 1 MiB.
	MaxAnswer int
	// RunLimit is how long an operation may run. It ends the context of the
	// operation, whose outcome is then unknown. 0: 10 min.
	RunLimit time.Duration
	// Late says that operations may have run before there was a file, where there is
	// none; see [Journal.Repeat].
	Late bool
	// Log takes damage, and disks that fail. nil: it is discarded.
	Log *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{{"Age", &o.Age, 24 * time.Hour}, {"MinAge", &o.MinAge, 10 * time.Minute}, {"RunLimit", &o.RunLimit, 10 * time.Minute}} {
		if *d.value == 0 {
			*d.value = d.def
		}
		if *d.value < 0 {
			return o, fmt.Errorf("ops: %s is %v; must not be negative", d.name, *d.value)
		}
	}
	if o.MaxOps == 0 {
		o.MaxOps = 50_000
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	if o.MaxAnswer == 0 {
		o.MaxAnswer = 1 << 20
	}
	switch {
	case o.MinAge > o.Age:
		return o, fmt.Errorf("ops: MinAge is %v; must be at most Age, which is %v", o.MinAge, o.Age)
	case o.MaxOps < 0 || o.MaxBytes < 0 || o.MaxAnswer < 0:
		return o, fmt.Errorf("ops: MaxOps, MaxBytes and MaxAnswer are %d, %d and %d; must not be negative", o.MaxOps, o.MaxBytes, o.MaxAnswer)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}
