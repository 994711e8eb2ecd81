// Package e2e tests the programs as they are run: real processes on real
// sockets, masters that are killed and cut off from each other, and the page in
// a real browser. The tests have the build tag e2e; make e2e runs them.
//
// Partitions need root and network namespaces (ip, of iproute2), the page needs
// Chromium, real VMs QEMU and, to boot Linux, a kernel in /boot or at E2E_KERNEL
// and a static busybox. What the machine cannot do is skipped, with the reason,
// and listed at the end. E2E_REQUIRE=all makes a failure of every such skip.
//
// Everything a test starts is below a temporary directory, listens on loopback
// or in namespaces of its own, and is gone when the test ends. The logs of a
// test that fails are printed; E2E_KEEP=1 keeps its files.
package e2e
