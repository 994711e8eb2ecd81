// Package identity keeps the ed25519 key that makes a master or an agent the
// same one after every restart.
//
// [Load] reads the key from a file, or makes the key and the file where there
// is none. [Identity.ID] is the libp2p peer id that follows from the key; the
// same key signs a node's account and secures its connections.
//
// The file is PKCS #8 in PEM, as `openssl pkey` reads it, with mode 0600. It is
// created whole or not at all, and once there it is never written again: a file
// that others can read or that does not parse is an error, because a new key in
// its place would be a new identity, which nobody has asked for.
package identity
