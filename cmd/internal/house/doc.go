// Package house has no code but tests, which keep the rules of the house over
// the whole repository: packages say what they are, files stay readable,
// programs do not link what they must not, and the documentation does not
// promise commands that are not there.
package house
