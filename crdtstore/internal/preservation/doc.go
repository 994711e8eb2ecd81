// Package preservation doubts that nodes are dead which fall silent together: most often a
// switch is, or this master is cut off, so they are suspect for the time being and not
// offline.
//
// A [Preserver] decides by what this master hears, other masters' pulses included, when
// that begins and ends; [Preserver.Look] is to be called every second or so. An operator
// ends it on all masters at once. The latest ending is a last-writer-wins register of the
// grid: masters publish it in their pulses, and keep it in a file, so that it holds on those
// that were cut off then or that start afterwards.
package preservation
