package explorer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/conncap"
)

// listenUnix listens on a unix socket that only this user can open. It makes
// the directories above it and takes the place of a socket that a killed server
// left behind, but not of one where a server answers, nor of any other file.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("directory of the socket: %w", err)
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("%s is there and is no socket; remove it or choose another path", path)
	default:
		if err := removeStale(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// Whoever can open the socket is trusted. Until this line the umask
	// protects it: connecting takes the right to write.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return &unixListener{Listener: l, path: path}, nil
}

// unixListener deletes its socket when it is closed. It does not wait for that for long: the
// disk may hang, and a socket that is left behind is recognised at the next start.
type unixListener struct {
	net.Listener
	path string
	once sync.Once
	err  error // of Close
}

// unlinkWithin is how long Close waits for the disk. A disk that is merely busy takes
// more than half a second.
const unlinkWithin = 2 * time.Second

// Close may be called by several; all return when the socket is gone.
func (l *unixListener) Close() error {
	l.once.Do(func() { l.err = l.close() })
	return l.err
}

func (l *unixListener) close() error {
	if err := l.Listener.Close(); err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() { gone <- os.Remove(l.path) }()
	select {
	case err := <-gone:
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	case <-time.After(unlinkWithin):
		return fmt.Errorf("delete %s: the disk does not answer", l.path)
	}
}

func removeStale(path string) error {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another server answers on %s; stop it or choose another path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s is in use or not ours: %w", path, err)
	}
	return os.Remove(path)
}

// counting counts the connections that it accepts.
type counting struct {
	net.Listener
	accepted prometheus.Counter
}

func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.accepted.Inc()
	}
	return conn, err
}

// bounded counts the connections of a listener, and keeps them within a share of the file
// descriptors. One address gets at most half of it: agents, of which thousands may be
// behind one, are served all the same, for their connections idle between heartbeats.
func (s *Server) bounded(l net.Listener, flag string, share int) net.Listener {
	perAddress := max(1, share/2)
	if flag == "rpc-socket" {
		perAddress = 0 // only this user gets there
	}
	return counting{conncap.Listen(l, conncap.Options{
		Name: flag, Total: max(1, share), PerAddress: perAddress, Logger: s.log,
		Closed: func(reason string) { s.metrics.closed.WithLabelValues(flag, reason).Inc() },
	}), s.metrics.conns.WithLabelValues(flag)}
}

// listenAPI returns the listener that the embedding program has given, or one on addr.
func (s *Server) listenAPI(addr string) (net.Listener, error) {
	if s.cfg.Listener != nil {
		return s.cfg.Listener, nil
	}
	return listenTCP(addr)
}

// listenTCP listens on an address; on all of both families where it is one of those that
// mean all. Go alone does so only where 127.0.0.1 is configured, which a host that has IPv6
// only may lack.
func listenTCP(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		both := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			controlErr := c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 0)
			})
			return errors.Join(controlErr, err)
		}}
		if l, err := both.Listen(context.Background(), "tcp6", net.JoinHostPort("::", port)); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", addr) // there is no IPv6, or the error says what else is wrong
}
