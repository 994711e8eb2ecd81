// Package qemutest has a guest for tests: a boot sector that greets on the first
// serial line and echoes what is typed. It is up a second after QEMU was started,
// and needs nothing from the network.
package qemutest
