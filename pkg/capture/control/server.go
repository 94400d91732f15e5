package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// Limits of one request.
const (
	maxRequestBytes = 64 << 10
	headerTimeout   = 5 * time.Second
	stopTimeout     = time.Second
)

// Backend does what is asked.
type Backend interface {
	Status() Status
	// Enroll returns when a cgroup is captured and the proxy has its listeners, or why it is not.
	Enroll(ctx context.Context, cgroup string) error
	// Supervised takes what the supervisor of both halves has counted.
	Supervised(handoff.Supervision)
	// Reload reads the documents again, and returns when they are in force, or why they are not.
	Reload(ctx context.Context) error
}

// A Server serves the control socket.
type Server struct {
	listener *net.UnixListener
	log      *zap.Logger
}

// Listen makes the control socket in a run directory; another socket there is replaced.
func Listen(runDir string, log *zap.Logger) (*Server, error) {
	path := socket(runDir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace %s: %w", path, err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// Who connected before this line is refused by SO_PEERCRED.
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &Server{listener: listener, log: log}, nil
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context, backend Backend) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, backend.Status())
	})
	mux.HandleFunc("POST /workloads", func(w http.ResponseWriter, r *http.Request) {
		var request enrolRequest
		if read(w, r, &request) {
			finish(w, backend.Enroll(r.Context(), request.Cgroup))
		}
	})
	mux.HandleFunc("PUT /supervision", func(w http.ResponseWriter, r *http.Request) {
		var counts handoff.Supervision
		if read(w, r, &counts) {
			backend.Supervised(counts)
			finish(w, nil)
		}
	})
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		finish(w, backend.Reload(r.Context()))
	})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          zap.NewStdLog(s.log),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		// Requests see ctx end too; those that do not finish are cut off.
		short, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if server.Shutdown(short) != nil {
			server.Close()
		}
	})
	err := server.Serve(rootOnly{s.listener, s.log})
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the control socket: %w", err)
}

// read decodes a request's body; when it is false the answer has been given.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		answer(w, http.StatusBadRequest, failure{Error: fmt.Sprintf("request: %v", err)})
		return false
	}
	return true
}

func finish(w http.ResponseWriter, err error) {
	if err != nil {
		answer(w, http.StatusUnprocessableEntity, failure{Error: err.Error()})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// The client is gone if this fails.
	_ = json.NewEncoder(w).Encode(body)
}

// rootOnly drops connections of anybody but root.
type rootOnly struct {
	*net.UnixListener
	log *zap.Logger
}

// Accept returns the next connection of root.
func (l rootOnly) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, pid, err := handoff.Peer(conn)
		if err == nil && uid == 0 {
			return conn, nil
		}
		conn.Close()
		l.log.Warn("refused a control connection", zap.Uint32("uid", uid), zap.Uint32("pid", pid), zap.Error(err))
	}
}
