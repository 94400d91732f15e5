package handoff

import (
	"errors"
	"net"
)

// A Person is who connected to the socket for people, as the kernel and the host knew them then. The privileged half asks, because it may:
// no mount option hides a process from it, and no sandbox the host's users. It reads nothing of what the person sends.
type Person struct {
	UID uint32 `json:"uid"`
	PID uint32 `json:"pid"`
	// User is the name of the uid; "" when the host has none.
	User string `json:"user,omitempty"`
	// Groups are the names of the user's groups, as the host lists them.
	Groups []string `json:"groups,omitempty"`
	// Cgroup is the process's.
	Cgroup string `json:"cgroup"`
}

// Person gives a person's connection to the newest proxy; it is the proxy's from then on, or closed. The error is ErrNoProxy when there
// is none; then the connection stays the caller's.
func (s *Server) Person(who Person, conn *net.UnixConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := s.newest()
	if newest == nil {
		return ErrNoProxy
	}
	newest.put(outgoing{message: &message{Kind: kindPerson, Person: &who}, person: conn})
	return nil
}

// drop closes what goes with a message that will not be sent.
func (o outgoing) drop() {
	if o.person != nil {
		o.person.Close()
	}
}

// sendPerson sends a connection and closes this process's own end of it.
func sendPerson(conn *net.UnixConn, out outgoing) error {
	defer out.drop()
	raw, err := out.person.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = send(conn, out.message, int(fd)) })
	return errors.Join(err, sent)
}
