package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/approval"
)

// Limits on what persons may ask for: any user of the machine is one.
const (
	maxRequestBytes = 16 << 10
	readTimeout     = 5 * time.Second
	writeTimeout    = 30 * time.Second
	idleTimeout     = 10 * time.Second
	maxConnections  = 256
	maxOfOne        = 16 // connections of one user
	stopTimeout     = time.Second
)

// A Server answers persons.
type Server struct {
	desk    *approval.Desk
	log     *zap.Logger
	refused func()
	queue   queue

	mu   sync.Mutex
	open map[uint32]int // connections by uid
	all  int
}

// NewServer makes a server of the requests of a desk. refused is called when somebody is not allowed what they ask for.
func NewServer(desk *approval.Desk, refused func(), log *zap.Logger) *Server {
	return &Server{desk: desk, log: log, refused: refused, open: map[uint32]int{}, queue: queue{conns: make(chan net.Conn), closed: make(chan struct{})}}
}

// Accept takes a connection and who is at its other end. It closes what comes when there are too many, or Serve has ended.
func (s *Server) Accept(who approval.Person, conn net.Conn) {
	s.mu.Lock()
	full := s.all >= maxConnections || s.open[who.UID] >= maxOfOne
	if !full {
		s.all++
		s.open[who.UID]++
	}
	s.mu.Unlock()
	if full {
		s.log.Warn("too many connections of people", zap.Uint32("uid", who.UID))
		conn.Close()
		return
	}
	known := &known{Conn: conn, who: who, left: sync.OnceFunc(func() { s.left(who.UID) })}
	select {
	case s.queue.conns <- known:
	case <-s.queue.closed:
		known.Close()
	}
}

func (s *Server) left(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.open[uid]--; s.open[uid] == 0 {
		delete(s.open, uid)
	}
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxRequestBytes, ErrorLog: zap.NewStdLog(s.log),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, personKey{}, conn.(*known).who)
		},
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		short, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if server.Shutdown(short) != nil {
			server.Close()
		}
	})
	err := server.Serve(&s.queue)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve people: %w", err)
}

// personKey finds the person of a request's connection.
type personKey struct{}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/requests", func(w http.ResponseWriter, r *http.Request) {
		state := r.URL.Query().Get("state")
		if state != "" && state != "pending" && state != "all" {
			answer(w, http.StatusBadRequest, failure{Error: "state is pending or all"})
			return
		}
		who := r.Context().Value(personKey{}).(approval.Person)
		list, err := s.desk.List(who, state == "all")
		got := listing{Requests: []View{}}
		for _, one := range list {
			got.Requests = append(got.Requests, view(who, one))
		}
		s.finish(w, r, got, err)
	})
	mux.HandleFunc("GET /v1/requests/{id}", func(w http.ResponseWriter, r *http.Request) {
		who := r.Context().Value(personKey{}).(approval.Person)
		one, err := s.desk.Get(who, r.PathValue("id"))
		s.finish(w, r, view(who, one), err)
	})
	mux.HandleFunc("POST /v1/requests/{id}/approve", func(w http.ResponseWriter, r *http.Request) { s.decide(w, r, true) })
	mux.HandleFunc("POST /v1/requests/{id}/deny", func(w http.ResponseWriter, r *http.Request) { s.decide(w, r, false) })
	return mux
}

func (s *Server) decide(w http.ResponseWriter, r *http.Request, approve bool) {
	var body verdict
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil {
		answer(w, http.StatusBadRequest, failure{Error: fmt.Sprintf("request: %v", err)})
		return
	}
	who := r.Context().Value(personKey{}).(approval.Person)
	one, err := s.desk.Decide(who, r.PathValue("id"), approve, body.Reason)
	if err == nil {
		s.log.Info("request decided", zap.String("request", one.ID), zap.String("state", string(one.State)), zap.Uint32("uid", who.UID),
			zap.String("user", who.User), zap.Uint32("pid", who.PID), zap.String("session", one.Session))
	}
	s.finish(w, r, view(who, one), err)
}

func view(who approval.Person, r approval.Request) View {
	return View{Request: r.Shown(), MayDecide: r.State == approval.Pending && who.MayDecide(&r) == nil}
}

// finish answers with a body, or with what went wrong. What went wrong with files is for the log.
func (s *Server) finish(w http.ResponseWriter, r *http.Request, body any, err error) {
	code := http.StatusOK
	switch {
	case err == nil:
	case errors.Is(err, approval.ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, approval.ErrForbidden):
		code = http.StatusForbidden
	case errors.Is(err, approval.ErrDecided):
		code = http.StatusConflict
	case errors.Is(err, approval.ErrNeedsReason):
		code = http.StatusUnprocessableEntity
	default:
		s.log.Error("approvals", zap.String("path", r.URL.Path), zap.Error(err))
		answer(w, http.StatusInternalServerError, failure{Error: "the approvals can not be read or written; the log says why"})
		return
	}
	if err != nil {
		if code == http.StatusForbidden || code == http.StatusNotFound {
			who := r.Context().Value(personKey{}).(approval.Person)
			s.refused()
			s.log.Warn("refused a person", zap.Uint32("uid", who.UID), zap.String("user", who.User), zap.Uint32("pid", who.PID), zap.Error(err))
		}
		answer(w, code, failure{Error: err.Error()})
		return
	}
	answer(w, code, body)
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client is gone if this fails
}

// known is a connection with its person.
type known struct {
	net.Conn
	who  approval.Person
	left func()
}

// Close closes the connection, and counts it no more.
func (k *known) Close() error {
	k.left()
	return k.Conn.Close()
}

// queue is a net.Listener of connections that come one by one.
type queue struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }
