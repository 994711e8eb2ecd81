package workeragent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStatusSocket(t *testing.T) {
	dir := shortTempDir(t)
	path := socketFile(dir)
	if err := os.WriteFile(path, nil, 0o600); err != nil { // left by a crash
		t.Fatal(err)
	}
	want := Status{NodeID: "n", Explorers: []ExplorerStatus{{Address: "a", State: StateRefused, LastError: "no"}}}
	stop, err := serveStatus(path, func() Status { return want })
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	got, err := FetchStatus(t.Context(), dir)
	if err != nil || got.NodeID != "n" || len(got.Explorers) != 1 || got.Explorers[0] != want.Explorers[0] {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket was left behind")
	}
	if _, err := FetchStatus(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "no agent runs") {
		t.Errorf("after stop: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := FetchStatus(ctx, dir); err == nil {
		t.Error("no error from a context that has ended")
	}
}

// shortTempDir is a temporary directory whose path leaves room for the name of
// a socket, which t.TempDir does not where a test's name is long.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Clean(dir)
}
