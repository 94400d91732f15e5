// Package people is the socket in the run directory on which people decide on what is held. It finds out who has connected, by
// the kernel's word (SO_PEERCRED, SO_PEERPIDFD), and hands the connection to the proxy with that. It reads nothing of what is sent: what
// power there is here must not parse what any user of the machine can send, and the proxy, which may parse, can not see every process.
//
// Processes of enrolled workloads are turned away: a workload can neither approve nor see what is held.
package people

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// SocketName is the socket's name in the run directory.
const SocketName = "approvals.sock"

const (
	// atOnce is how many connections are looked into at one time; more wait in the backlog.
	atOnce = 32
	// farewell is how long a person who is turned away may take to read why.
	farewell = time.Second
)

// Backend takes what comes in.
type Backend interface {
	// Enrolled is true for a cgroup of a workload, and for all below it.
	Enrolled(cgroup string) bool
	// Person takes a connection of somebody outside of every workload; on an error it stays the caller's.
	Person(who handoff.Person, conn *net.UnixConn) error
}

// A Server serves the socket.
type Server struct {
	listener *net.UnixListener
	log      *zap.Logger
}

// Listen makes the socket in a run directory, for everybody to connect to; another socket there is replaced.
func Listen(runDir string, log *zap.Logger) (*Server, error) {
	path := filepath.Join(runDir, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace %s: %w", path, err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// Who may decide say the documents, not this mode.
	if err := os.Chmod(path, 0o666); err != nil {
		listener.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &Server{listener: listener, log: log}, nil
}

// Serve hands connections over until ctx ends.
func (s *Server) Serve(ctx context.Context, backend Backend) error {
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, atOnce)
	for {
		slots <- struct{}{}
		conn, err := s.listener.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve the socket for people: %w", err)
		case err != nil:
			<-slots
			s.log.Warn("accept a person", zap.Error(err))
			time.Sleep(50 * time.Millisecond) // out of descriptors, mostly: the backlog keeps
			continue
		}
		running.Go(func() {
			defer func() { <-slots }()
			s.serve(conn, backend)
		})
	}
}

func (s *Server) serve(conn *net.UnixConn, backend Backend) {
	who, err := identify(conn)
	if err != nil {
		s.log.Warn("refused a person who is not known", zap.Uint32("uid", who.UID), zap.Uint32("pid", who.PID), zap.Error(err))
		turnAway(conn, http.StatusForbidden, "it can not be told who you are")
		return
	}
	if backend.Enrolled(who.Cgroup) {
		s.log.Warn("refused a process of a workload that would decide on what is held", zap.String("cgroup", who.Cgroup),
			zap.Uint32("uid", who.UID), zap.Uint32("pid", who.PID))
		turnAway(conn, http.StatusForbidden, "processes of workloads do not decide on what is held")
		return
	}
	name(&who)
	switch err := backend.Person(who, conn); {
	case errors.Is(err, handoff.ErrNoProxy):
		turnAway(conn, http.StatusServiceUnavailable, "no proxy runs: nothing is held")
	case err != nil:
		s.log.Warn("hand over a person", zap.Error(err))
		conn.Close()
	}
}

// turnAway answers whatever is asked, unread.
func turnAway(conn *net.UnixConn, code int, message string) {
	defer conn.Close()
	body, err := json.Marshal(map[string]string{"error": message})
	if err != nil {
		return // a map of strings
	}
	answer := http.Response{
		StatusCode: code, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json"}}, Close: true,
		ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(string(body))),
	}
	_ = conn.SetDeadline(time.Now().Add(farewell))
	if answer.Write(conn) == nil && conn.CloseWrite() == nil {
		// Closing before the request has come would look like an error to the person.
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, 64<<10))
	}
}
