package house

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A file that is replaced without a sync, or a name whose directory is not synced, is lost in
// a power cut, and no test that only kills processes sees it. So files are written by
// internal/atomicfile, whose tests cut the power at every step.
func TestFilesAreWrittenDurably(t *testing.T) {
	writes := regexp.MustCompile(`\bos\.(Rename|Link|WriteFile|Create|CreateTemp|Mkdir|MkdirAll)\(`)
	allowed := map[string]string{
		"cmd/explorer/backup.go":              "a backup is streamed; it syncs the file and the directory",
		"crdtstore/backup.go":                 "what a restore spools is read in the same run",
		"crdtstore/internal/golden/golden.go": "it is for tests",
		"explorer/listen.go":                  "a socket does not outlive the power",
		"internal/atomicfile/disk.go":         "it is what all others use",
		"workeragent/machine.go":              "it probes whether the disk takes writes",
		"workeragent/internal/ops/disk.go":    "it has a log of its own, and tests that cut the power",
	}
	used := map[string]bool{}
	goFiles(t, func(path string, src []byte) {
		kept := []string{"crdtstore/", "explorer/", "workeragent/", "cmd/", "internal/"}
		if isTest(path) || !slices.ContainsFunc(kept, func(dir string) bool { return strings.HasPrefix(path, dir) }) {
			return
		}
		found := writes.Find(src)
		if used[path] = found != nil; found != nil && allowed[path] == "" {
			t.Errorf("%s calls %s…); use internal/atomicfile", path, found)
		}
	})
	for path := range allowed {
		if !used[path] {
			t.Errorf("%s is allowed to write files and does not", path)
		}
	}
}
