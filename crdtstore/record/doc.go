// Package record is the pure merge core: what is known of one compute node,
// and how two such knowledges become one.
//
// A [State] is a product of registers. [Join] merges two states; it is
// commutative, associative and idempotent, total on every input, and never
// changes its arguments, so masters that have seen the same states in any
// order, any number of times, hold equal states. [State.Encode] is canonical:
// equal states have equal bytes, and [Decode] refuses every other spelling.
//
// The registers of a state:
//
//   - [Claim]: an account that a machine gives of itself, one per identity key
//     that ever spoke for the node id. It holds the [Profile] and the [VM] list
//     as two [Account] registers, versioned by (boot, seq), which only the node's
//     agent advances. No clock decides between two accounts.
//   - [Override]: what an operator set about one field (drained, a label). The last
//     writer wins, by hybrid logical clock, then master id, then value. A removal
//     takes back the overrides that its master knew, and no others.
//   - [Removal]: hides every account of a boot no later than the removed one.
//   - LastSeen: a maximum, for display and retention only.
//
// Around the states stand the values that people and programs see: [Report] is
// what an agent sends, [Node] what a reader gets. [Accept] turns a report into
// the state that it asserts; this is where a field that was left out keeps
// what is known, because in Join such a rule would not be associative.
// [View] turns a state into a Node; [Liveness] computes the status when it is
// read, from ages alone.
//
// Nothing in this package does I/O, starts a goroutine, reads a clock or logs.
// Every function may be called concurrently; values are not to be modified
// after they were handed in.
package record
