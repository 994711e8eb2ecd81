package host

import (
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// limits are what the control groups of this process leave it. Zero: no limit.
type limits struct {
	cores  float64
	memory uint64 // bytes
}

// readLimits reads the limits of a process below a root directory: the least of those of
// its group and of all groups above it. In a container the groups above may not be seen;
// then what stands at the mount counts.
func readLimits(root string) limits {
	var l limits
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return l
	}
	base := filepath.Join(root, "sys/fs/cgroup")
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // id:controllers:path
		if len(parts) != 3 {
			continue
		}
		if parts[1] == "" { // version 2
			eachGroup(base, parts[2], func(dir string) {
				l.limitMemory(word(dir, "memory.max"))
				if f := strings.Fields(word(dir, "cpu.max")); len(f) == 2 {
					l.limitCores(f[0], f[1])
				}
			})
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			mount := filepath.Join(base, controller)
			if _, err := os.Stat(mount); err != nil {
				mount = filepath.Join(base, parts[1])
			}
			eachGroup(mount, parts[2], func(dir string) {
				switch controller {
				case "memory":
					l.limitMemory(word(dir, "memory.limit_in_bytes"))
				case "cpu":
					l.limitCores(word(dir, "cpu.cfs_quota_us"), word(dir, "cpu.cfs_period_us"))
				}
			})
		}
	}
	return l
}

// eachGroup calls f for a group and those above it, up to the mount.
func eachGroup(mount, group string, f func(dir string)) {
	for group = path.Clean("/" + group); ; group = path.Dir(group) {
		f(filepath.Join(mount, group))
		if group == "/" {
			return
		}
	}
}

func word(dir, name string) string {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// number is a whole number in a file of the kernel, 0 where there is none.
func number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (l *limits) limitMemory(text string) {
	// "max", and in version 1 a number next to 2^63, mean that there is none.
	if n := number(text); n > 0 && n < 1<<62 && (l.memory == 0 || n < l.memory) {
		l.memory = n
	}
}

func (l *limits) limitCores(quota, period string) {
	q, err := strconv.ParseFloat(quota, 64)
	p, err2 := strconv.ParseFloat(period, 64)
	if err != nil || err2 != nil || q <= 0 || p <= 0 {
		return
	}
	if n := q / p; l.cores == 0 || n < l.cores {
		l.cores = n
	}
}
