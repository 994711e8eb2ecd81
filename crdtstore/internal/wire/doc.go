// Package wire reads and writes the protobuf wire format by hand: the records, and the
// messages between masters. It is values in, values out, and knows no message of its own;
// the package that has a message has its fields.
//
// Writers leave out what is zero, so that equal values have equal bytes as long as fields
// are appended in ascending order. Readers get fields in the order of the input, and share
// memory with it.
package wire
