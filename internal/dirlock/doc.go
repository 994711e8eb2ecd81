// Package dirlock makes a directory that of one user at a time.
//
// The lock is on the directory itself and not on its path: whoever comes by another
// spelling, by a symbolic link or by a bind mount meets the same lock, in this process as
// in others. It takes no file, so it can be taken on a disk that is full or read-only. The
// system releases it when the process ends, however it ends.
package dirlock
