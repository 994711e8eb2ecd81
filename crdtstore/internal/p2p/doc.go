// Package p2p joins masters into a mesh: a libp2p host assembled from TCP, Noise
// and Yamux, the addresses to look for others at, and the handshake that admits
// them. Only admitted masters get through to the protocols above: the host that
// [Mesh.Host] returns neither hands out nor opens a stream to anyone else.
package p2p
