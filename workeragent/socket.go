package workeragent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

func socketFile(dataDir string) string { return filepath.Join(dataDir, "agent.sock") }

// serveStatus answers GET /status on a unix socket that only this user can
// open. The caller holds the lock on the directory, so what is there is stale.
func serveStatus(path string, status func() Status) (stop func() error, err error) {
	ln, err := listenSocket(path)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status()) // whoever asked may be gone
	})
	srv := &http.Server{
		Handler:        mux,
		ReadTimeout:    5 * time.Second,
		WriteTimeout:   5 * time.Second,
		IdleTimeout:    5 * time.Second,
		MaxHeaderBytes: 8 << 10,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln) // until Close
	}()
	return func() error {
		err := srv.Close() // also removes the socket
		<-done
		return err
	}, nil
}

// listenSocket listens on a unix socket that only this user can open, in the place of
// one that was left behind.
func listenSocket(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// maxStatus bounds what FetchStatus reads: 1,000 VMs at their longest.
const maxStatus = 4 << 20

// FetchStatus asks the agent that runs with that data directory. It returns an
// error that says so when none runs there.
func FetchStatus(ctx context.Context, dataDir string) (s Status, err error) {
	dir, err := ExpandPath(dataDir)
	if err != nil {
		return s, err
	}
	path := socketFile(dir)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return s, fmt.Errorf("no agent runs with the data directory %s: %w", dir, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, fmt.Errorf("the agent answered %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&s); err != nil {
		return s, fmt.Errorf("read the agent's answer: %w", err)
	}
	return s, nil
}
