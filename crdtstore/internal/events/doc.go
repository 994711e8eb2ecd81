// Package events is the audit log of a master: what it saw happen to nodes, VMs, masters
// and the grid, and what operators asked for. It is fed by those to whom it happens and read
// by people only: nothing that decides imports it, so a master without it does all that it
// does with it.
package events
