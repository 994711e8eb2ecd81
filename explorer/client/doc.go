// Package client calls JSON-RPC services over HTTP, on unix sockets and on TCP:
// masters, and the compute services of nodes.
//
// [Parse] reads an address; [Dial] gives a [Conn] to one service; [New] gives a
// [Client] over several that are as good as each other, such as the masters of
// one grid, and goes on to the next when one fails.
//
// # At most once
//
// A call that fails on its way is a [TransportError], and its Sent tells whether
// the other side may have carried the call out. One that may have been carried
// out is not sent again, unless its method is [Idempotent]. An error that the
// other side answered with is a [jsonrpc.Error]; its data says by whom it is where
// a master passes on what nodes answer.
//
// Where a call is [Repeatable], a master that is silent for 3 s is not waited for alone:
// the next is asked beside it, and the first answer counts. So one that is frozen, which
// takes connections and never answers, costs 3 s, and one that is merely slow is not
// given up.
//
// A call of a Client that [Mutates] VMs is carried out once, however often it is
// sent. It is given a name, its op_id, which the node remembers. A call whose
// answer was lost goes to the next master under the same name, marked as a
// repetition by op_again, and gets the first answer; so does one whose master is
// silent for a few seconds. Where nobody remembers names, a master does not carry
// a repetition out, but answers that the outcome is unknown. [OutcomeUnknown]
// tells errors that leave it open from those that are an answer. The context
// bounds all of it, and so do 150 s.
//
// # Limits
//
// Redirects are not followed and proxies of the environment are not used.
// Answers are bounded by [Options].MaxAnswer. All methods may be called
// concurrently.
package client
