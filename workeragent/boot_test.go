package workeragent

import (
	"path/filepath"
	"testing"
)

// Each start has a greater boot number, whatever the clock says; one that cannot be kept is
// not given out.
func TestBootIsKeptFirst(t *testing.T) {
	dir := t.TempDir()
	for want := uint64(1000); want < 1005; want++ {
		if boot, warning, err := nextBoot(dir, 1000); boot != want || warning != nil || err != nil {
			t.Errorf("boot %d, %v, %v, want %d", boot, warning, err, want)
		}
	}
	if _, _, err := nextBoot(filepath.Join(dir, "missing"), 1000); err == nil {
		t.Error("a boot number that is not kept is given out")
	}
}
