// Package attempts decides about a call that may be attempted several times, by several
// ways, and must be carried out at most once.
//
// All that is known of an attempt without an answer is whether the call was sent. If it
// was, it may have been carried out, or may yet be. Who attempts it asks Next before each
// attempt, marks the attempt as Begin says, and tells Ended how it ended. An answer that
// nothing was done is the answer to that attempt alone: it stands for the call only while
// MayRun is false.
package attempts
