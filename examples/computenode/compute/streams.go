package compute

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// MaxStreams is how many logs and consoles may be followed at once on one
// service.
const MaxStreams = 256

// Follow reads a VM's log as it grows, beginning with the last lines, until ctx
// ends. The caller closes it.
func (s *Service) Follow(ctx context.Context, sid, secret string, lines int) (LogReader, error) {
	if _, _, err := s.find(sid, secret); err != nil {
		return nil, err
	}
	ctx, done, err := s.streams.begin(ctx)
	if err != nil {
		return nil, err
	}
	log, err := s.driver.Follow(ctx, sid, lines)
	if err != nil {
		done()
		return nil, errDriver(sid, err)
	}
	return &countedLog{LogReader: log, done: endWith(ctx, log, done)}, nil
}

// countedLog counts as a stream until it is closed.
type countedLog struct {
	LogReader
	done func()
}

func (l *countedLog) Close() error {
	defer l.done()
	return l.LogReader.Close()
}

// Console attaches to the serial console of a running VM, until ctx ends. All
// consoles of a VM read the same; see Driver for how they end. The caller closes
// it.
func (s *Service) Console(ctx context.Context, sid, secret string) (io.ReadWriteCloser, error) {
	_, vm, err := s.find(sid, secret)
	if err != nil {
		return nil, err
	}
	if vm.State != Running {
		return nil, errNotRunning(vm)
	}
	ctx, done, err := s.streams.begin(ctx)
	if err != nil {
		return nil, err
	}
	console, err := s.driver.Console(ctx, sid)
	if err != nil {
		done()
		return nil, errDriver(sid, err)
	}
	return &countedConsole{ReadWriteCloser: console, done: endWith(ctx, console, done)}, nil
}

// countedConsole counts as a stream until it is closed.
type countedConsole struct {
	io.ReadWriteCloser
	done func()
}

func (c *countedConsole) Close() error {
	defer c.done()
	return c.ReadWriteCloser.Close()
}

// endWith closes what is followed when ctx ends, and returns what to call when
// it is closed otherwise.
func endWith(ctx context.Context, followed io.Closer, done func()) func() {
	detach := context.AfterFunc(ctx, func() { followed.Close() })
	return func() {
		detach()
		done()
	}
}

// EndStreams ends all that follows a log or a console, and takes no more of
// them.
func (s *Service) EndStreams() { s.streams.end() }

// streams counts what is followed and can end it all.
type streams struct {
	mu      sync.Mutex
	running map[*context.CancelFunc]struct{}
	ended   bool
	idle    chan struct{} // once ended: closed when none is left
}

// begin returns the context of a new stream, and what to call, once or more,
// when it is over.
func (s *streams) begin(ctx context.Context) (context.Context, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return nil, nil, errBusy("the service is ending", "try again when it is back")
	case len(s.running) >= MaxStreams:
		return nil, nil, errBusy(fmt.Sprintf("%d logs and consoles are followed, which is the most", MaxStreams), "close one or try again later")
	}
	ctx, cancel := context.WithCancel(ctx)
	if s.running == nil {
		s.running = map[*context.CancelFunc]struct{}{}
	}
	s.running[&cancel] = struct{}{}
	return ctx, func() {
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.running, &cancel)
		s.announceIdle()
	}, nil
}

func (s *streams) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended, s.idle = true, make(chan struct{})
	for cancel := range s.running {
		(*cancel)()
	}
	s.announceIdle()
}

// announceIdle is called with the lock held.
func (s *streams) announceIdle() {
	if !s.ended || len(s.running) > 0 {
		return
	}
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}

// wait returns when no stream is left, or ctx ends. Called after end.
func (s *streams) wait(ctx context.Context) {
	select {
	case <-s.idle:
	case <-ctx.Done():
	}
}

// isEnded reports whether end was called.
func (s *streams) isEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}
