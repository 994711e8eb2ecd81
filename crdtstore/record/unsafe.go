package record

import "unsafe"

// unsafeBytes views a string as bytes without a copy. The result is only ever
// read; decoding is on the path of every replicated record.
func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
