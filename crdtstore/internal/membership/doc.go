// Package membership keeps the one table of masters: what each says of itself (addresses,
// version, settings, clock), what is heard of it here and by way of others, and since when.
//
// From that it decides, in one place, how a master is seen (see [Status]), which of those
// that are [Alive] is responsible for a node (see [Rendezvous]), which are partially
// connected, and which are forgotten. All it is told comes in by [Table.Observe], [Table.Left] and [Table.Merged];
// [Table.Look] finds what has changed by the passing of time and publishes it. The table is
// kept in a file, so that after a restart the masters are looked for, and shown, even while
// they are down.
package membership
