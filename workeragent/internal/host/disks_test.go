package host

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPools(t *testing.T) {
	sys := t.TempDir()
	for file, text := range map[string]string{
		"dev/block/253:5/slaves/dm-3/dm/uuid": "LVM-abc-tpool\n",
		"dev/block/253:6/slaves/dm-3/dm/uuid": "LVM-abc-tpool\n",
		"dev/block/253:1/slaves/sda/x":        "",
		"class/block/dm-3/size":               "200\n", // sectors
		"class/block/sdb/queue/rotational":    "1\n",
	} {
		file = filepath.Join(sys, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		mountinfo string
		spaces    map[string]space // by mount point
		want      []filesystem
	}{
		"ext4, bound elsewhere, with what is no disk": {`22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 8:1 /var/data /srv/with\040space rw shared:1 - ext4 /dev/disk/by-uuid/x rw
24 22 0:30 / /run rw - tmpfs tmpfs rw
25 22 0:40 / /mnt/share rw - nfs4 server:/share rw
26 22 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro
27 22 7:1 / /mnt/image rw - ext4 /dev/loop1 rw
28 22 8:16 / /slow rw - xfs /dev/sdb rw
nonsense
`, map[string]space{"/": {100, 40}, "/srv/with space": {100, 40}, "/run": {9, 9}, "/mnt/share": {9, 9}, "/snap/core/1": {9, 9}, "/mnt/image": {9, 9}, "/slow": {1000, 1}},
			[]filesystem{{100, 40, false}, {1000, 1, true}}},
		"ZFS, a pool with many datasets and another": {`22 1 0:20 / / rw - zfs tank/root rw
23 22 0:21 / /home rw - zfs tank/home rw
24 22 0:21 /x /bound rw - zfs tank/home rw
25 22 0:22 / /quota rw - zfs tank/quota rw
26 22 0:23 / /other rw - zfs other rw
`, map[string]space{"/": {110, 10}, "/home": {130, 30}, "/bound": {130, 30}, "/quota": {7, 2}, "/other": {50, 5}},
			[]filesystem{{142, 42, false}, {50, 5, false}}},
		"btrfs, subvolumes of one file system": {`22 1 0:20 /@ / rw - btrfs /dev/sda2 rw,subvol=/@
23 22 0:20 /@home /home rw - btrfs /dev/sda2 rw,subvol=/@home
24 22 0:20 /@data /data rw - btrfs /dev/sdc rw,subvol=/@data
`, map[string]space{"/": {100, 40}, "/home": {100, 40}, "/data": {100, 40}}, []filesystem{{100, 40, false}}},
		"LVM, a thin pool that promises more than it has": {`22 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw
23 22 253:5 / /a rw - xfs /dev/mapper/vg-a rw
24 22 253:6 / /b rw - xfs /dev/mapper/vg-b rw
`, map[string]space{"/": {50, 1}, "/a": {80000, 10}, "/b": {90000, 20}}, []filesystem{{50, 1, false}, {102400, 30, false}}},
		"a container on an overlay, with files bound from the host": {`22 1 0:50 / / rw - overlay overlay rw
23 22 8:1 /docker/hosts /etc/hosts rw - ext4 /dev/sda1 rw
24 22 8:1 /docker/name /etc/hostname rw - ext4 /dev/sda1 rw
`, map[string]space{"/": {100, 40}, "/etc/hosts": {100, 40}, "/etc/hostname": {100, 40}}, []filesystem{{100, 40, false}}},
		"one mount does not tell, another of the same does": {`22 1 8:1 / /gone rw - ext4 /dev/sda1 rw
23 1 8:1 / /here rw - ext4 /dev/sda1 rw
`, map[string]space{"/here": {100, 40}}, []filesystem{{100, 40, false}}},
		"two file systems under one name": {`22 1 8:1 / / rw - ext4 /dev/root rw
23 22 8:2 / /data rw - ext4 /dev/root rw
`, map[string]space{"/": {100, 40}, "/data": {200, 50}}, []filesystem{{100, 40, false}, {200, 50, false}}},
		"nothing but memory": {"22 1 0:1 / / rw - tmpfs tmpfs rw\n", map[string]space{"/": {1, 1}}, nil},
	} {
		got := pools(sys, readMounts(c.mountinfo), func(point string) (space, error) {
			s, ok := c.spaces[point]
			if !ok {
				return s, errors.New("not there")
			}
			return s, nil
		})
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
