package handoff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// handshakeTimeout bounds the wait for the server's first message.
const handshakeTimeout = 5 * time.Second

// A Handler is the proxy. Its methods are called one at a time, in the order in which capture sent the messages; each may
// call ReadFile.
type Handler interface {
	// Documents applies documents as a whole, or returns why not and keeps the earlier ones. Capture gets the answer.
	Documents(Documents) error
	// Enroll takes over the listeners of a workload. With an id that is enrolled already, a new generation replaces the
	// old one, and listeners of the same generation replace those that were given before.
	Enroll(Workload, []*net.TCPListener)
	// Withdraw forgets a workload; its listeners are the handler's to close.
	Withdraw(id uint64)
	// CaptureStatus is called each second, and when something changed.
	CaptureStatus(CaptureStatus)
	// CaptureEvent is called for denials by the kernel, of which capture does not send more than so many.
	CaptureEvent(CaptureEvent)
	// Person is called for each person who connects to decide on what is held. The connection is the handler's.
	Person(Person, net.Conn)
}

// ErrBroken says that the connection to capture broke: another one may do better.
var ErrBroken = errors.New("the connection to capture broke")

// A Client is the proxy's side of the seam.
type Client struct {
	conn *net.UnixConn
	log  *zap.Logger

	mu      sync.Mutex
	broken  error
	request uint64
	waiting map[uint64]chan fileAnswer
	queue   []incoming
	wake    chan struct{}
}

type incoming struct {
	message *message
	files   []*os.File
}

type fileAnswer struct {
	content []byte
	err     error
}

// Dial connects to capture's socket. The server must run as root or as the caller's own user, and speak the same version of
// the protocol.
func Dial(ctx context.Context, path string, log *zap.Logger) (*Client, error) {
	dialer := net.Dialer{}
	dialled, err := dialer.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("connect to capture: %w", err)
	}
	conn := dialled.(*net.UnixConn)
	if err := greet(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to capture at %s: %w", path, err)
	}
	return &Client{conn: conn, log: log, waiting: map[uint64]chan fileAnswer{}, wake: make(chan struct{}, 1)}, nil
}

func greet(conn *net.UnixConn) error {
	uid, pid, err := Peer(conn)
	if err != nil {
		return err
	}
	if uid != 0 && uid != uint32(os.Getuid()) {
		return fmt.Errorf("the server, process %d, is of user %d: want root or user %d", pid, uid, os.Getuid())
	}
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	if err := send(conn, &message{Kind: kindHello, Version: version}); err != nil {
		return err
	}
	m, files, err := receive(conn, make([]byte, maxMessageBytes))
	if err != nil {
		return fmt.Errorf("wait for hello: %w", err)
	}
	closeAll(files)
	if m.Kind != kindHello || m.Version != version {
		return fmt.Errorf("the server says %s of version %d, not hello of version %d", m.Kind, m.Version, version)
	}
	return conn.SetDeadline(time.Time{})
}

// Run calls the handler until ctx ends (nil), or the socket breaks (an error): then the client is of no more use.
func (c *Client) Run(ctx context.Context, handler Handler) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	read := make(chan struct{})
	go func() {
		defer close(read)
		err := c.read()
		c.fail(err)
		cancel(err)
	}()
	err := c.handle(ctx, handler)
	c.conn.Close()
	<-read
	c.drop()
	return err
}

// handle gives queued messages to the handler.
func (c *Client) handle(ctx context.Context, handler Handler) error {
	for {
		for _, in := range c.take() {
			if err := c.dispatch(in, handler); err != nil {
				return err
			}
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, ctx.Err()) {
				return err
			}
			return nil
		}
	}
}

func (c *Client) take() []incoming {
	c.mu.Lock()
	defer c.mu.Unlock()
	queue := c.queue
	c.queue = nil
	return queue
}

// drop closes what was received and not handled.
func (c *Client) drop() {
	for _, in := range c.take() {
		closeAll(in.files)
	}
}

// read receives until the socket breaks: answers to ReadFile go to who waits, all else is queued, so that a handler can
// wait for a file.
func (c *Client) read() error {
	buffer := make([]byte, maxMessageBytes)
	for {
		m, files, err := receive(c.conn, buffer)
		if errors.Is(err, io.EOF) {
			return errors.New("capture closed the socket")
		}
		if err != nil {
			return fmt.Errorf("receive from capture: %w", err)
		}
		if m.Kind == kindFile {
			c.answer(m, files)
			continue
		}
		c.mu.Lock()
		c.queue = append(c.queue, incoming{message: m, files: files})
		c.mu.Unlock()
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// dispatch handles one message, and closes its descriptors.
func (c *Client) dispatch(in incoming, handler Handler) error {
	defer closeAll(in.files)
	switch m := in.message; m.Kind {
	case kindDocuments:
		return c.documents(in.files[0], handler)
	case kindEnroll:
		listeners, err := listenersOf(in.files)
		if err != nil {
			return err
		}
		handler.Enroll(*m.Workload, listeners)
		return send(c.conn, &message{Kind: kindEnrolled, ID: m.Workload.ID, Generation: m.Workload.Generation})
	case kindWithdraw:
		handler.Withdraw(m.ID)
	case kindStatus:
		handler.CaptureStatus(*m.Status)
	case kindEvent:
		handler.CaptureEvent(*m.Event)
	case kindPerson:
		conn, err := net.FileConn(in.files[0])
		if err != nil {
			return fmt.Errorf("take over a person's connection: %w", err)
		}
		handler.Person(*m.Person, conn)
	default:
		return fmt.Errorf("%w: %s from capture", errMessage, m.Kind)
	}
	return nil
}

func (c *Client) documents(file *os.File, handler Handler) error {
	data, err := unsealed(file, maxDocumentsBytes)
	if err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	var documents Documents
	if err := json.Unmarshal(data, &documents); err != nil {
		return fmt.Errorf("documents: %w: %w", errMessage, err)
	}
	answer := &message{Kind: kindApplied, Revision: documents.Revision}
	if err := handler.Documents(documents); err != nil {
		c.log.Error("documents refused", zap.Uint64("revision", documents.Revision), zap.Error(err))
		answer.Error = truncate(err.Error())
	}
	return send(c.conn, answer)
}

// truncate keeps an error's text well within a message.
func truncate(text string) string {
	const most = 4096
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

func listenersOf(files []*os.File) ([]*net.TCPListener, error) {
	var listeners []*net.TCPListener
	for _, file := range files {
		listener, err := net.FileListener(file)
		if err != nil {
			return nil, fmt.Errorf("take over a listener: %w", err)
		}
		tcp, ok := listener.(*net.TCPListener)
		if !ok {
			listener.Close()
			return nil, fmt.Errorf("%w: a listener of %s", errMessage, listener.Addr().Network())
		}
		listeners = append(listeners, tcp)
	}
	return listeners, nil
}

// ReadFile asks capture for the content of a file that the documents in force name: a regular file of at most 1 MiB, read
// anew each time. It works while Run runs; the error is ErrBroken when that ended.
func (c *Client) ReadFile(ctx context.Context, path string) ([]byte, error) {
	answer := make(chan fileAnswer, 1)
	c.mu.Lock()
	if c.broken != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("read %s: %w", path, c.broken)
	}
	c.request++
	request := c.request
	c.waiting[request] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, request)
		c.mu.Unlock()
	}()

	if err := send(c.conn, &message{Kind: kindRead, Request: request, Path: path}); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", path, ErrBroken, err)
	}
	select {
	case got := <-answer:
		return got.content, got.err
	case <-ctx.Done():
		return nil, fmt.Errorf("read %s: %w", path, ctx.Err())
	}
}

// answer gives the content of a file to who waits for it.
func (c *Client) answer(m *message, files []*os.File) {
	defer closeAll(files)
	var got fileAnswer
	if m.Error != "" {
		got.err = errors.New(m.Error)
	} else {
		got.content, got.err = unsealed(files[0], maxFileBytes)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if waiting, ok := c.waiting[m.Request]; ok {
		delete(c.waiting, m.Request)
		waiting <- got
	}
}

// fail answers all who wait for a file, and those to come.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = fmt.Errorf("%w: %w", ErrBroken, err)
	for request, waiting := range c.waiting {
		delete(c.waiting, request)
		waiting <- fileAnswer{err: c.broken}
	}
}

// Close closes the socket; Run returns an error then.
func (c *Client) Close() error {
	return c.conn.Close()
}
