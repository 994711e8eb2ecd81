package dirlock

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// spellings returns other paths of a directory.
func spellings(t *testing.T, dir string) map[string]string {
	t.Helper()
	link := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Symlink(dir, link), os.Symlink(link, link+" of a link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(dir))
	return map[string]string{
		"the same": dir, "a slash": dir + "/", "dots": filepath.Dir(dir) + "/./" + filepath.Base(dir) + "/../" + filepath.Base(dir),
		"relative": filepath.Base(dir), "a link": link, "a link of a link": link + " of a link",
	}
}

func TestOneLockWhateverTheSpelling(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dätä 100%")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	others := spellings(t, dir)
	for name, path := range others {
		if other, err := Take(path); !errors.Is(err, ErrInUse) {
			t.Errorf("%s: %v, want %v", name, err, ErrInUse)
			if err == nil {
				_ = other.Close()
			}
		}
	}
	// What was refused has given nothing back.
	if inOtherProcess(t, dir) == nil {
		t.Error("another process took it")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := inOtherProcess(t, dir); err != nil {
		t.Errorf("another process could not take it after Close: %v", err)
	}
	for name, path := range others {
		l, err := Take(path) // the other process has ended without giving it back
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = l.Close()
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// inOtherProcess takes the lock in another process, which ends with it.
func inOtherProcess(t *testing.T, dir string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "DIRLOCK_TEST_DIR="+dir)
	return cmd.Run()
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("DIRLOCK_TEST_DIR"); dir != "" {
		if _, err := Take(dir); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestNoDirectory(t *testing.T) {
	if _, err := Take(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want %v", err, os.ErrNotExist)
	}
}
