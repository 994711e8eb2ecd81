package host

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  limits
	}{
		"none": {nil, limits{}},
		"version 2, none": {map[string]string{
			"proc/self/cgroup": "0::/user.slice\n", "sys/fs/cgroup/user.slice/memory.max": "max\n", "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
		}, limits{}},
		"version 2, the group above is narrower": {map[string]string{
			"proc/self/cgroup":             "0::/a/b\n",
			"sys/fs/cgroup/a/memory.max":   "1000\n",
			"sys/fs/cgroup/a/b/memory.max": "2000\n",
			"sys/fs/cgroup/a/cpu.max":      "max 100000\n",
			"sys/fs/cgroup/a/b/cpu.max":    "150000 100000\n",
		}, limits{1.5, 1000}},
		"version 2, a container": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4096\n", "sys/fs/cgroup/cpu.max": "50000 100000\n",
		}, limits{0.5, 4096}},
		"version 1": {map[string]string{
			"proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n1:name=systemd:/\n",
			"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes":  "5000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":           "9223372036854771712\n",
			"sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us":  "300000\n",
			"sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":           "-1\n",
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us":          "100000\n",
		}, limits{3, 5000}},
		"version 1, a container that sees its own group at the mount": {map[string]string{
			"proc/self/cgroup":                           "4:memory:/docker/x\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "6000\n",
		}, limits{0, 6000}},
		"nonsense": {map[string]string{
			"proc/self/cgroup": "x\n0::/../..\n", "sys/fs/cgroup/memory.max": "-5\n", "sys/fs/cgroup/cpu.max": "0 0\n",
		}, limits{}},
	} {
		root := t.TempDir()
		for file, text := range c.files {
			file = filepath.Join(root, file)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := readLimits(root); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
