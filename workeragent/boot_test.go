package workeragent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A power cut at any moment leaves the old file or the new one: what is in the new one is
// on stable storage before it takes the old one's name, and the name is before anybody
// goes by it. Where a step fails, the old file stays.
func TestFilesAreReplacedDurably(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "boot")
	holds := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	t.Cleanup(func() { fsync = (*os.File).Sync })
	if err := writeFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	for failing, want := range map[int]string{0: "new", 1: "old", 2: "new"} {
		if err := writeFile(path, []byte("old")); err != nil {
			t.Fatal(err)
		}
		var synced []string
		broken := errors.New("input/output error")
		fsync = func(f *os.File) error {
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			what := "the directory"
			if !info.IsDir() {
				b, err := os.ReadFile(f.Name())
				if err != nil {
					t.Fatal(err)
				}
				what = "a file with " + string(b)
			}
			synced = append(synced, what+", while "+holds()+" is there")
			if len(synced) == failing {
				return broken
			}
			return f.Sync()
		}
		err := writeFile(path, []byte("new"))
		fsync = (*os.File).Sync
		if (failing == 0) != (err == nil) || failing > 0 && !errors.Is(err, broken) {
			t.Errorf("step %d fails: error %v", failing, err)
		}
		steps := []string{"a file with new, while old is there", "the directory, while new is there"}
		if failing == 1 {
			steps = steps[:1]
		}
		if !slices.Equal(synced, steps) {
			t.Errorf("step %d fails: synced is %q, want %q", failing, synced, steps)
		}
		if got := holds(); got != want {
			t.Errorf("step %d fails: the file holds %q, want %q", failing, got, want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("step %d fails: left behind are %v, %v", failing, left, err)
		}
	}
}

// A boot number is on stable storage before it is used; one that is not is not given out.
func TestBootIsKeptFirst(t *testing.T) {
	dir := t.TempDir()
	if boot, _, err := nextBoot(dir, 1000); boot != 1000 || err != nil {
		t.Fatal(boot, err)
	}
	t.Cleanup(func() { fsync = (*os.File).Sync })
	fsync = func(*os.File) error { return errors.New("input/output error") }
	if _, _, err := nextBoot(dir, 1000); err == nil {
		t.Error("a boot number that is not kept is given out")
	}
	fsync = (*os.File).Sync
	for want := uint64(1001); want < 1005; want++ {
		if boot, warning, err := nextBoot(dir, 1000); boot != want || warning != nil || err != nil {
			t.Errorf("boot %d, %v, %v, want %d", boot, warning, err, want)
		}
	}
}
