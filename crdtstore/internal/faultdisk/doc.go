// Package faultdisk has file systems for tests: [Hook] calls back before everything that
// changes the disk, so that a test can let the power fail at each step, and with [Stuck] it
// hangs where and for as long as a test wants.
package faultdisk
