// Package watch tells those who follow a store what changes: a bounded buffer of changes
// that any number of watchers read, each at its own pace, and the statuses of nodes, which
// change by the mere passing of time.
package watch
