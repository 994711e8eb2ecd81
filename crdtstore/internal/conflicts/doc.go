// Package conflicts remembers whom a master has turned away of the id of a node: senders
// that claim it beside the one whose account is on record. What it holds is bounded and in
// memory, and decides nothing; people see it.
package conflicts
