// Package host reads the figures of this machine: what it has, what of it is
// in use, how it is called and where mycelium reaches it.
//
// A [Sampler] survives whatever a machine can throw at it. A figure that cannot
// be read keeps the value it had, and the error is handed back beside the
// figures. A disk that hangs makes Sample hang, so it belongs on a goroutine on
// which nothing waits.
//
// Of cores and memory the limits of the control groups around the process are the total
// (version 1 and 2, those of all groups above included), and so is its CPU set.
//
// Disks are counted by what is mounted: each local file system once, told by its device
// number rather than its name, whatever of it is mounted wherever; each ZFS pool once;
// volumes of an LVM thin pool together as no more than that has. They are SSD or HDD by
// what the kernel says of the device below, SSD where it says nothing, as for ZFS. A disk
// without a file system, network shares, memory and images are not counted. Totals move only when they have moved by more than
// a hundredth, because the size of some file systems (btrfs, ZFS) breathes, and
// each new total is a new record on every master.
package host
