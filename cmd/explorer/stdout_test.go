package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// full is a disk that takes some bytes, and then nothing.
type full struct{ left int }

func (f *full) Write(b []byte) (int, error) {
	n := min(f.left, len(b))
	if f.left -= n; n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// A command whose output nobody takes ends and fails, and says that it is the output: no
// master is to blame, and none is asked again.
func TestStdoutThatTakesNothing(t *testing.T) {
	s := newStub(stubGrids["MASTER"])
	defer s.Close()
	master := s.Listener.Addr().String()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("s3"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"HOME": dir, "EXPLORER_ADDR": master, "EXPLORER_DATA_DIR": dir}[name]
		return v, ok
	}
	for _, args := range []string{
		"version", "--help", "nodes --help", "openrpc", "health", "health --json", "status", "status --json",
		"nodes", "nodes list --json", "nodes get n1", "nodes get n1 --json", "nodes watch", "nodes watch --json", "nodes drain n1",
		"masters", "masters --json", "events", "events --json", "events --follow", "events --follow --json",
		"vms", "vms get v1", "vms get v1 --json", "id", "token create", "token list",
		"backup -", "backup FILE", "vms stats v1", "vms exec v1 -- ls", "vms logs v1", "vms logs v1 --follow --secret-file SECRET", "vms stop v1",
	} {
		for _, left := range []int{0, 1} {
			var errs bytes.Buffer
			list := strings.Fields(strings.NewReplacer("SECRET", secret, " FILE", " "+filepath.Join(t.TempDir(), "b")).Replace(args))
			if args == "token create" {
				list = append(list, fmt.Sprint("ci", left))
			}
			code := run(t.Context(), list, env, &full{left}, &errs)
			if code != 1 || !strings.HasPrefix(lastLine(errs.String()), "explorer: cannot write to stdout: no space left on device") {
				t.Errorf("%s, after %d bytes: exit code %d: %s", args, left, code, &errs)
			}
			if strings.Contains(errs.String(), "trying again") {
				t.Errorf("%s: the master is asked again: %s", args, &errs)
			}
		}
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
