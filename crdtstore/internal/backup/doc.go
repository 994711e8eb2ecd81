// Package backup writes and reads the file that holds the records of a store. It knows the
// format and whether a file is whole; what becomes of the records is the caller's affair.
package backup
