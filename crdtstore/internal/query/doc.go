// Package query lists nodes and VMs: which of those in a table match, in which order, page
// by page. A query looks at every node, once, but for one that asks for all nodes in the
// order of their ids.
package query
