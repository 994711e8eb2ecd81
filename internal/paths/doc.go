// Package paths finds the files that users name: below the home directory, below the
// directory of sockets, or where they say.
package paths
