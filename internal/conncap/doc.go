// Package conncap bounds the connections that an HTTP server holds, over all and from one
// address, so that no client can take those that others need. Where a new connection is
// one too many, another one is closed for it: of the address with the most connections that
// serve no request, the one that has served none for the longest time. It is idle, or a
// request on it does not come to its end. Only where all are being served the new one is
// turned away.
package conncap
