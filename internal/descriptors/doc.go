// Package descriptors shares out the file descriptors that a process may have open, so
// that no part of it takes what another one needs: strangers who open connections must not
// keep the database from its files, nor an operator from the local socket.
package descriptors
