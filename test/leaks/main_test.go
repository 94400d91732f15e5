package leaks

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"
)

// insideVariable makes this test's program the process inside a workload: it listens on the Unix socket that the variable names, and
// connects each connection to the address in addressVariable. What it receives there, the test receives.
const (
	insideVariable  = "SALLYPORT_LEAKS_INSIDE"
	addressVariable = "SALLYPORT_LEAKS_ADDRESS"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(insideVariable); path != "" {
		if err := forward(path, os.Getenv(addressVariable)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// forward serves until its standard input ends.
func forward(path, address string) error {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		listener.Close()
	}()
	for {
		ours, err := listener.Accept()
		if err != nil {
			return nil // closed: the test is over
		}
		go func() {
			defer ours.Close()
			theirs, err := net.Dial("tcp", address)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			defer theirs.Close()
			go func() {
				_, _ = io.Copy(theirs, ours)
				_ = theirs.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(ours, theirs)
		}()
	}
}
