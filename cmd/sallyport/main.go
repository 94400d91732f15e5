// Command sallyport is for people: it runs the node agent, starts workloads under it, checks documents, and shows sessions.
package main

import (
	"errors"
	"fmt"
	"os"
)

// version is set at build time, from git describe.
var version = "dev"

// An exitError ends the command with a status other than 1. A nil err says nothing more: what there was to say has been said.
type exitError struct {
	status int
	err    error
}

// Error is the cause's text.
func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

// Unwrap is the cause, which may be nil.
func (e *exitError) Unwrap() error { return e.err }

func main() { os.Exit(execute()) }

// execute runs the command line and returns the exit status: 0, 1, or that of an exitError.
func execute() int {
	err := newRootCommand().Execute()
	if err == nil {
		return 0
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{status: 1, err: err}
	}
	if exit.err != nil {
		fmt.Fprintln(os.Stderr, "sallyport:", exit.err)
	}
	return exit.status
}
