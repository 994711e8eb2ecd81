// Package query lists nodes and VMs: which of those in a table match, in which order, page
// by page. A query looks at every node, once, but for one that asks for all nodes in the
// order of their ids. VMs are listed with what their nodes have answered to callers
// meanwhile, see [Acknowledged].
package query
