// Package relay moves bytes between the two legs of a session. A protocol gives it two halves of one state machine (bytes in,
// bytes out, no I/O); the package drives them, either by epoll loops (plain TCP on both legs, the fast way: one read and one
// write for each event, no goroutine and no buffer for an idle session) or by two goroutines (when a leg is TLS).
//
// Invariants: what a half has not consumed is offered again, with more behind it; nothing is read from one side while the
// other side's socket is full; a link ends once, and its sockets are the caller's again.
package relay
