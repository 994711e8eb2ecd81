// Package golden holds encodings against files that were written once and are kept.
// What leaves a process or stays on disk must not change by accident: other masters,
// and the same master tomorrow, read it. Tests compare what is written now with the
// file, and read what the file holds.
//
// A file is text: bytes in hex, cut into lines where a reader would cut them, each
// with a note of what it is. So a change shows in a diff as what it is.
//
//	go test ./crdtstore/internal/epoch -run Golden -update
//
// writes the files of a package anew. To do so is to change a format; see "Versions"
// in docs/protocol.md.
package golden
