package output

import (
	"fmt"
	"io"
	"sync"
)

// Stdout is what a command prints to. The first error stays: from then on nothing is
// written, so that what was printed is a beginning of what was to be printed. It is safe
// for concurrent use.
type Stdout struct {
	to   io.Writer
	lost func(error)

	mu  sync.Mutex // guards what follows
	err error
}

// NewStdout returns a Stdout that writes to another writer. At the first error it calls
// lost with it, once.
func NewStdout(to io.Writer, lost func(error)) *Stdout { return &Stdout{to: to, lost: lost} }

func (s *Stdout) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.to.Write(b)
	if err != nil {
		s.err = fmt.Errorf("cannot write to stdout: %w", err)
		s.lost(s.err)
	}
	return n, s.err
}

// Err returns the first error, which names stdout, or nil.
func (s *Stdout) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
