package workeragent

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

// nextBoot chooses the boot number of this run: the time (Unix milliseconds), or
// one more than the last number where the clock has gone back. It is on stable
// storage before it is used, for masters ignore what a lower boot says. A file
// that makes no sense comes back as a warning: to fall silent for it would be
// worse than to trust the clock.
func nextBoot(dir string, now int64) (boot uint64, warning, err error) {
	path := filepath.Join(dir, "boot")
	var last uint64
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return 0, nil, err
	default:
		last, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63)
		if err != nil || last == math.MaxInt64 {
			last, warning = 0, fmt.Errorf("%s does not hold a boot number; the clock decides", path)
		}
	}
	boot = max(uint64(max(now, 1)), last+1)
	return boot, warning, writeFile(path, strconv.AppendUint(nil, boot, 10))
}

// writeFile is [atomicfile.Write]. Tests put their own in its place.
var writeFile = atomicfile.Write

// bootAnyway is nextBoot for a node that has to be reported also where its disk takes no
// writes, or cannot be read. The number may then be lost; a later run is behind it only
// if the clock goes back.
func bootAnyway(dir string, now int64) (boot uint64, warning error) {
	boot, warning, err := nextBoot(dir, now)
	return max(boot, uint64(max(now, 1))), errors.Join(warning, err)
}
