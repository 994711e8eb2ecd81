// Package qemu runs the machines of package compute with QEMU: one
// qemu-system-x86_64 process each, by software emulation, so that it works on
// any host.
//
//	driver, err := qemu.New(ctx, qemu.Config{Images: "/srv/images", Dir: "/var/lib/computenode"})
//	if err != nil { … }
//	svc, err := compute.New(compute.Config{Driver: driver, StatePath: "/var/lib/computenode/vms.json"})
//
// # Images
//
// The image of a VM is a name in the directory of images:
//
//	<name>/kernel, <name>/initrd, <name>/cmdline   a Linux kernel; only kernel must be there
//	<name>.qcow2, <name>.raw, <name>.img           a disk with an x86 boot loader
//
// A VM writes to a layer of its own over the disk, which lasts until the VM is
// deleted; qemu-img makes it. An image must not change while VMs have it. The
// console is the first serial line, so a cmdline says console=ttyS0. There is no
// network in a VM: the one that QEMU offers without privileges lets a guest
// reach what listens on the host's loopback.
//
// # One VM, one process
//
// The directory of a VM holds a lock that its QEMU process inherits and keeps
// until it ends, whatever becomes of this one. So a VM never has two, and after
// a crash of the service its VMs run on: the next one finds their sockets there
// and takes them over, and ends those that it does not know. When the service
// ends in order, its VMs are shut down.
//
// What a VM writes to its serial line is in a file of its directory, of which
// the last MiB is kept. vm_exec is not offered: nothing in the guest would carry
// it out.
package qemu
