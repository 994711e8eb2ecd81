package main

import "syscall"

// endWithParent makes a process end when this one does, even by kill -9. It has
// a group of its own, so that Ctrl-C leaves its end to this one.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
