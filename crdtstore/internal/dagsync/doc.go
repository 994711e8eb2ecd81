// Package dagsync brings the blocks of a history from one master to another:
// announcements with the new blocks inlined, and a stream protocol that ships
// the blocks one side misses, oldest first, after both sides have found out
// which those are. What arrives is handed to a [History] in an order in which
// every block finds its past.
package dagsync
