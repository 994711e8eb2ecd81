// Package seam is where tests put something else in the place of the machine: the hosts on
// which masters meet, the wall clock, the disk. It is no part of the configuration of a
// store, and programs cannot reach it.
package seam
