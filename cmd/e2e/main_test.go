//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// The programs under test, built once.
var (
	binDir  string
	repoDir string
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(launcherEnv); socket != "" {
		fmt.Fprintln(os.Stderr, launch(socket))
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if binDir, err = os.MkdirTemp("", "hx-bin-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(binDir)
	if err := buildInto(binDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	skipped.report()
	return code
}

// buildInto builds the programs into a directory.
func buildInto(dir string, flags ...string) error {
	top, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("finding the module: %w", err)
	}
	repoDir = strings.TrimSpace(string(top))
	argv := append([]string{"build", "-ldflags", "-s -w -X main.version=" + testVersion, "-o", dir + "/"}, flags...)
	cmd := exec.Command("go", append(argv, "./cmd/explorer", "./cmd/workeragent", "./examples/computenode")...)
	cmd.Dir = repoDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	return nil
}

const testVersion = "v0.0.0-e2e"

// skips collects what could not be tested here.
type skips struct {
	mu   sync.Mutex
	list []string
}

var skipped skips

// skip skips the test with a reason, or fails it where the environment demands
// that everything is tested.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("E2E_REQUIRE") == "all" {
		t.Fatalf("cannot be tested on this machine: %s", reason)
	}
	skipped.mu.Lock()
	skipped.list = append(skipped.list, t.Name()+": "+reason)
	skipped.mu.Unlock()
	t.Skip(reason)
}

func (s *skips) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return
	}
	var b bytes.Buffer
	fmt.Fprintln(&b, "\nNot tested, for this machine cannot do it:")
	for _, line := range s.list {
		fmt.Fprintln(&b, "  "+line)
	}
	os.Stdout.Write(b.Bytes())
}
