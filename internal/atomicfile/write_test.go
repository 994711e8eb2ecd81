package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// cuts runs an operation with the power cut at each of its steps and after the last one,
// with each choice of directories of which the disk wrote the names down unasked. check
// gets what the operation returned.
func cuts(t *testing.T, prepare, run func(on disk) error, check func(t *testing.T, d *memDisk, err error)) {
	t.Helper()
	for step, done := 1, false; !done; step++ {
		for kept := 0; kept < 16; kept++ {
			d := newMemDisk()
			if err := prepare(d); err != nil {
				t.Fatal(err)
			}
			d.steps, d.cutAt = 0, step
			err := run(d)
			if done = d.steps < step; done != (err == nil) {
				t.Fatalf("step %d of %d: %v", step, d.steps, err)
			}
			d.cut(kept)
			t.Run(fmt.Sprintf("step %d, names %04b", step, kept), func(t *testing.T) { check(t, d, err) })
		}
	}
}

func content(d *memDisk, path string) string {
	n := d.find(path)
	if n == nil {
		return "nothing"
	}
	return string(n.data)
}

func TestWriteOverPowerCuts(t *testing.T) {
	cuts(t,
		func(on disk) error { return write(on, "/boot", []byte("old")) },
		func(on disk) error { return write(on, "/boot", []byte("new")) },
		func(t *testing.T, d *memDisk, err error) {
			if got := content(d, "/boot"); got != "new" && (err == nil || got != "old") {
				t.Errorf("the file holds %q, and Write returned %v", got, err)
			}
		})
}

func TestCreateOverPowerCuts(t *testing.T) {
	cuts(t,
		func(disk) error { return nil },
		func(on disk) error { return create(on, "/key", []byte("secret")) },
		func(t *testing.T, d *memDisk, err error) {
			if got := content(d, "/key"); got != "secret" && (err == nil || got != "nothing") {
				t.Errorf("the file holds %q, and Create returned %v", got, err)
			}
		})
}

// A file is only there when the directories above it are.
func TestMkdirAllOverPowerCuts(t *testing.T) {
	cuts(t,
		func(on disk) error { return mkdirAll(on, "/var", 0o700) },
		func(on disk) error {
			return errors.Join(mkdirAll(on, "/var/hero/explorer", 0o700), create(on, "/var/hero/explorer/key", []byte("secret")))
		},
		func(t *testing.T, d *memDisk, err error) {
			if got := content(d, "/var/hero/explorer/key"); got != "secret" && (err == nil || got != "nothing") {
				t.Errorf("the file holds %q, after %v", got, err)
			}
		})
}

func TestOnTheMachine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := errors.Join(MkdirAll(dir, 0o700), MkdirAll(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	if err := Create(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, []byte("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("making it a second time: %v, want %v", err, fs.ErrExist)
	}
	if b, _ := os.ReadFile(path); string(b) != "one" {
		t.Errorf("it holds %q, want what was there first", b)
	}
	if err := Write(path, []byte("three")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "three" {
		t.Errorf("it holds %q", b)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	if err := MkdirAll(filepath.Join(path, "c"), 0o700); err == nil {
		t.Error("a directory was made below a file")
	}
}
