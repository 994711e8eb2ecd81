// Package runs tells apart the runs of masters: which run of a master is the one that
// lives now, what is late message of an earlier one, and when two processes have the same
// identity.
//
// It goes by what must have been before what, and by no clock. Each pulse has a number,
// and names the last pulse that its sender had from each other master: an echo. So an
// echo of our pulse n proves that its sender lived after we sent n.
//
// [Table] is that model, of all runs. [Collisions] acts on it: it answers the mesh whom to
// admit, has this run yield, and publishes collisions that begin and end.
package runs
