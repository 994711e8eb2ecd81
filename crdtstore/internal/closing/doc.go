// Package closing bounds how long a store waits for its disk while it is closed.
package closing
