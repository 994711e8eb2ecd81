// Package atomicfile makes and replaces small files, and makes directories, so that a power
// cut leaves them whole, either as they were or as they are to be. It also tells
// files that a newer program has written.
//
// When a function returns without an error, its effect is on stable storage: the bytes of
// the file, and the name in its directory. On a file system that does not say when that is
// so, as little is promised as the file system does. All functions may be called
// concurrently; of two that write one file, the later one prevails.
//
// Everything in this module that has to survive a power cut is written here, except for
// what has a log of its own: the history, and the agent's operations.
package atomicfile
