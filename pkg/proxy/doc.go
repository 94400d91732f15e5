// Package proxy is the unprivileged half: it accepts captured connections, makes sure who dialled, plans the session and
// hands it to the protocol of its target.
//
// The road is accept → identify → plan → protocol, and each step's result is the next one's ticket: only an identified
// Connection can be authorized, and only an authorized Session has a lease, a record and decisions. The Session is the one place of
// decide → record → forward; a protocol (a package below this one) only says how to ask, accept and deny in its own words.
package proxy
