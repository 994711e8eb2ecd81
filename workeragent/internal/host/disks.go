package host

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shirou/gopsutil/v4/disk"
)

// mounted is a line of mountinfo (proc_pid_mountinfo(5)).
type mounted struct {
	device string // major:minor of the file system: the same for all its mounts
	point  string
	kind   string // of the file system
	source string
}

// readMounts reads a mountinfo. Lines that make no sense are left out.
func readMounts(text string) (all []mounted) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(text) {
		place, what, ok := strings.Cut(line, " - ")
		before, after := strings.Fields(place), strings.Fields(what)
		if ok && len(before) >= 6 && len(after) >= 2 {
			all = append(all, mounted{before[2], unescape.Replace(before[4]), after[0], unescape.Replace(after[1])})
		}
	}
	return all
}

// pool is what shares its space: a file system, however often and of whatever of its
// parts it is mounted, or the datasets of a ZFS pool.
func (m mounted) pool() string {
	if m.kind == "zfs" {
		name, _, _ := strings.Cut(m.source, "/")
		return "zfs " + name
	}
	return m.device
}

// countable leaves out what holds no space of this machine to give: network shares,
// memory, and images.
func (m mounted) countable() bool {
	switch m.kind {
	case "squashfs", "iso9660", "udf", "erofs":
		return false
	case "zfs", "bcachefs":
		return true
	}
	return strings.HasPrefix(m.source, "/dev/") && !strings.HasPrefix(m.source, "/dev/loop")
}

// space is what statfs says: bytes.
type space struct{ total, used uint64 }

func usage(ctx context.Context, point string) (space, error) {
	u, err := disk.UsageWithContext(ctx, point)
	if err != nil {
		return space{}, err
	}
	return space{u.Total, u.Used}, nil
}

// pools lists what the mounts hold, each pool once, in the order of the mounts. The
// datasets of a ZFS pool each tell what they use, and besides only what is free for all.
// Volumes out of a thin pool may promise more than that has.
func pools(sys string, mounts []mounted, usage func(point string) (space, error)) []filesystem {
	type found struct {
		filesystem
		free uint64
		thin string
	}
	var all []*found
	byPool, seen := map[string]*found{}, map[string]bool{}
	for _, m := range mounts {
		if !m.countable() || seen[m.device] {
			continue
		}
		s, err := usage(m.point)
		if err != nil || s.total == 0 {
			continue // another mount of the same may tell
		}
		seen[m.device] = true
		p := byPool[m.pool()]
		if p == nil {
			p = &found{filesystem: filesystem{rotational: rotational(sys, m.source)}, thin: thinPool(sys, m.device)}
			byPool[m.pool()] = p
			all = append(all, p)
		}
		p.used += s.used
		p.free = max(p.free, s.total-min(s.used, s.total))
		p.total = p.used + p.free
		if m.kind != "zfs" {
			p.total = s.total
		}
	}
	var out []filesystem
	thin := map[string]int{} // where the thin pools are in out
	for _, p := range all {
		if p.thin == "" {
			out = append(out, p.filesystem)
			continue
		}
		at, ok := thin[p.thin]
		if !ok {
			at = len(out)
			thin[p.thin] = at
			out = append(out, filesystem{rotational: p.rotational})
		}
		out[at].used += p.used
		out[at].total += p.total
	}
	for name, at := range thin {
		if size := deviceSize(sys, name); size > 0 {
			out[at].total = min(out[at].total, size)
			out[at].used = min(out[at].used, size)
		}
	}
	return out
}

// thinPool returns the LVM thin pool from which a device takes its space; empty: none.
func thinPool(sys, device string) string {
	dir := filepath.Join(sys, "dev/block", device, "slaves")
	below, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	i := slices.IndexFunc(below, func(e os.DirEntry) bool {
		return strings.HasSuffix(word(filepath.Join(dir, e.Name()), "dm/uuid"), "-tpool")
	})
	if i < 0 {
		return ""
	}
	return below[i].Name()
}

// deviceSize is the size of a block device in bytes, which the kernel tells in sectors
// of 512; 0: not told.
func deviceSize(sys, name string) uint64 {
	const sector = 512
	return number(word(filepath.Join(sys, "class/block", name), "size")) * sector
}
