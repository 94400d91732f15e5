package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// rateVariable is how many connections per second a client opens; idleVariable how many it opens once and keeps, idle;
// stuckVariable that it opens one and stays in a transaction.
const (
	rateVariable  = "SALLYPORT_TEST_RATE"
	idleVariable  = "SALLYPORT_TEST_IDLE"
	stuckVariable = "SALLYPORT_TEST_STUCK"
)

// patience bounds one connection of a client.
const patience = 15 * time.Second

// A result is what a client saw.
type result struct {
	// Outcomes are how connections went, with how many went so.
	Outcomes map[string]int
	// Latencies are how long those took that went well, in milliseconds: median, 99th of 100, longest.
	Median, P99, Longest float64
	// Farewells are, of idle connections, when after the first the others were told to go, in seconds.
	Farewells []float64
}

// outcome of a connection that did all that it was to do.
const fine = "fine"

// The others: refused at once, denied by the kernel, lost after it was accepted, told to go before it had asked, without an answer in time.
const (
	refused  = "refused"
	denied   = "denied"
	lost     = "lost"
	sentAway = "sent away"
	timedOut = "timed out"
)

// runClient opens connections until its input ends, and prints its result.
func runClient(address string) {
	var r result
	switch n := number(idleVariable); {
	case n > 0:
		r = keepIdle(address, n)
	case number(stuckVariable) > 0:
		r = result{Outcomes: map[string]int{stuck(address): 1}}
	default:
		r = hammer(address, number(rateVariable))
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		panic(err)
	}
}

func number(variable string) (n int) {
	fmt.Sscan(os.Getenv(variable), &n)
	return n
}

// hammer opens connections at a rate, whatever becomes of those before.
func hammer(address string, rate int) result {
	ended := inputEnded()
	var (
		mu        sync.Mutex
		outcomes  = map[string]int{}
		latencies []float64
		all       sync.WaitGroup
	)
	start := time.Now()
	for i := 0; ; i++ {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		select {
		case <-ended:
			all.Wait()
			r := result{Outcomes: outcomes}
			if slices.Sort(latencies); len(latencies) > 0 {
				r.Median, r.P99, r.Longest = latencies[len(latencies)/2], latencies[len(latencies)*99/100], latencies[len(latencies)-1]
			}
			return r
		case <-time.After(time.Until(due)):
		}
		if i == 0 {
			fmt.Println("started")
		}
		all.Go(func() {
			began := time.Now()
			how := visit(address, fmt.Sprint("answer ", i))
			mu.Lock()
			defer mu.Unlock()
			outcomes[how]++
			if how == fine {
				latencies = append(latencies, float64(time.Since(began))/float64(time.Millisecond))
			}
		})
	}
}

func inputEnded() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return ended
}

// connect is a connection that is ready for queries.
func connect(address string) (*pgproto3.Frontend, net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	frontend := pgproto3.NewFrontend(conn, conn)
	frontend.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": workloadUser}})
	if err = frontend.Flush(); err == nil {
		_, err = untilReady(frontend)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return frontend, conn, nil
}

// serverError is a message of the server's.
type serverError struct{ code, text string }

// Error is the code with the text.
func (e *serverError) Error() string { return e.code + " " + e.text }

// untilReady reads until the server waits for a query, and returns the last value that it sent.
func untilReady(frontend *pgproto3.Frontend) (value string, err error) {
	for {
		message, err := frontend.Receive()
		if err != nil {
			return "", err
		}
		switch m := message.(type) {
		case *pgproto3.DataRow:
			value = string(m.Values[0])
		case *pgproto3.ErrorResponse:
			return "", &serverError{code: m.Code, text: m.Message}
		case *pgproto3.ReadyForQuery:
			return value, nil
		}
	}
}

func ask(frontend *pgproto3.Frontend, query string) (string, error) {
	frontend.Send(&pgproto3.Query{String: query})
	if err := frontend.Flush(); err != nil {
		return "", err
	}
	return untilReady(frontend)
}

// visit connects, asks for a constant, and leaves.
func visit(address, constant string) string {
	frontend, conn, err := connect(address)
	if err != nil {
		return nameOf(err)
	}
	defer conn.Close()
	answer, err := ask(frontend, "SELECT '"+constant+"'")
	if err != nil {
		return nameOf(err)
	}
	if answer != constant {
		return "answered with " + answer
	}
	frontend.Send(&pgproto3.Terminate{})
	_ = frontend.Flush()
	return fine
}

func nameOf(err error) string {
	var told *serverError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused
	case errors.Is(err, syscall.EPERM):
		return denied
	case errors.As(err, &told) && told.code == "57P01":
		return sentAway
	case errors.As(err, &told):
		return told.Error()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return timedOut
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return lost
	}
	return err.Error()
}

// stuck begins a transaction, never ends it, and says how the connection ended.
func stuck(address string) string {
	frontend, conn, err := connect(address)
	if err == nil {
		defer conn.Close()
		_, err = ask(frontend, "BEGIN")
	}
	if err == nil {
		fmt.Println("started")
		_, err = untilReady(frontend)
	}
	return nameOf(err)
}

// keepIdle opens connections and waits until each was told to go. The first is in a transaction, which it ends when the others
// are gone.
func keepIdle(address string, n int) result {
	r := result{Outcomes: map[string]int{}}
	var (
		mu     sync.Mutex
		others sync.WaitGroup
		first  time.Time
	)
	busy, conn, err := connect(address)
	if err == nil {
		_, err = ask(busy, "BEGIN")
	}
	if err != nil {
		return result{Outcomes: map[string]int{err.Error(): 1}}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{})
	for range n {
		frontend, conn, err := connect(address)
		if err == nil {
			_, err = ask(frontend, "SELECT 'something'")
		}
		if err != nil {
			return result{Outcomes: map[string]int{err.Error(): 1}}
		}
		_ = conn.SetDeadline(time.Time{})
		others.Go(func() {
			defer conn.Close()
			_, err := untilReady(frontend)
			mu.Lock()
			defer mu.Unlock()
			if first.IsZero() {
				first = time.Now()
			}
			r.Outcomes[nameOf(err)]++
			r.Farewells = append(r.Farewells, time.Since(first).Seconds())
		})
	}
	fmt.Println("started")
	others.Wait()
	value, err := ask(busy, "SELECT 'still there'")
	if err != nil || value != "still there" {
		r.Outcomes[fmt.Sprintf("in the transaction: %q, %v", value, err)]++
		return r
	}
	switch _, err = ask(busy, "COMMIT"); {
	case err == nil:
		_, err = untilReady(busy)
	case !strings.HasPrefix(err.Error(), "57P01"):
		r.Outcomes["at the commit: "+err.Error()]++
	}
	r.Outcomes["after the transaction "+nameOf(err)]++
	return r
}
