// Package serial passes on what a machine writes to its serial line, to any
// number of readers at once.
//
// A [Line] never waits for a reader: each [Tap] has a buffer of its own, and one
// that is not read for too long is cut off. So no console, however slow, holds a
// machine up. All methods may be called concurrently.
package serial
