// Package postgres is Sallyport's PostgreSQL: the server towards the workload and the client towards the real server, with
// every operation decided in between. Protocol 3.0, as in the manual's chapter "Frontend/Backend Protocol".
//
// A session is: startup (SSLRequest, GSSENCRequest, StartupMessage; any user, no password) → authorize → login upstream with the
// lease → relay. The relay is one state machine without I/O: frontend processes what the client sends, backend what the server
// sends, and both share a machine. It knows at every moment which answers are due (inflight), so that each message of
// the server belongs to one of the client's.
//
// What is denied is replaced by a message that the server itself refuses: its error takes the right place among pipelined answers,
// aborts an open transaction and makes the server skip to Sync, exactly as any failed statement would; on the way back the
// error's content becomes the denial. So the two ends never disagree about the state of the session.
package postgres
