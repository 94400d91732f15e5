// Package static issues leases of a user name and a password that somebody else keeps up to date: in a file, which is read
// for each lease, or in a variable of the process's environment.
package static

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/credential"
)

// MaxSecretBytes is the length that a secret may have, its trailing newline included.
const MaxSecretBytes = 64 << 10

// Files reads the files that documents name.
type Files interface {
	// ReadFile gives the content of the file, which the caller may overwrite.
	ReadFile(ctx context.Context, path string) ([]byte, error)
}

// Errors of what a secret turns out to be.
var (
	ErrEmpty    = errors.New("it is empty")
	ErrNUL      = errors.New("it has a NUL byte")
	ErrTooLarge = fmt.Errorf("it is larger than %d bytes", MaxSecretBytes)
	ErrUnset    = errors.New("it was not set when the process started")
)

// New makes a source of a CredentialSource document with spec.static. A variable is read here, once; the value stays in the
// environment, because the source is made anew when documents change, and because unsetting a variable leaves its value in
// the memory that /proc/PID/environ shows. Prefer a file.
func New(doc v1alpha1.CredentialSource, files Files) credential.Source {
	s := &source{name: doc.Metadata.Name, spec: *doc.Spec.Static, files: files}
	if s.spec.Password.Env != "" {
		value, ok := os.LookupEnv(s.spec.Password.Env)
		s.variable = func() (string, bool) { return value, ok }
	}
	return s
}

type source struct {
	name  string
	spec  v1alpha1.StaticCredential
	files Files
	// variable is the value of spec.password.env, a closure as secrets are.
	variable func() (string, bool)
}

// Issue reads the password and gives a lease that does not expire; releasing it clears the password.
func (s *source) Issue(ctx context.Context, _ credential.Request) (*credential.Lease, error) {
	value, err := s.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("credential source %s: %w", s.name, err)
	}
	password := credential.NewSecret(value)
	return &credential.Lease{
		Source:   s.name,
		Username: s.spec.Username,
		Password: password,
		Expires:  time.Time{},
		Release: func(context.Context) error {
			password.Clear()
			return nil
		},
	}, nil
}

func (s *source) read(ctx context.Context) ([]byte, error) {
	if s.variable != nil {
		variable, ok := s.variable()
		if !ok {
			return nil, fmt.Errorf("variable %s: %w", s.spec.Password.Env, ErrUnset)
		}
		value := []byte(variable)
		if err := check(value); err != nil {
			return nil, fmt.Errorf("variable %s: %w", s.spec.Password.Env, err)
		}
		return value, nil
	}
	content, err := s.files.ReadFile(ctx, s.spec.Password.File)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.spec.Password.File, err)
	}
	value := trimNewline(content)
	if err := check(value); err != nil {
		clear(content)
		return nil, fmt.Errorf("file %s: %w", s.spec.Password.File, err)
	}
	return value, nil
}

// trimNewline drops one "\n" or "\r\n", which editors and echo leave at the end of a file.
func trimNewline(content []byte) []byte {
	if trimmed, ok := bytes.CutSuffix(content, []byte("\n")); ok {
		return bytes.TrimSuffix(trimmed, []byte("\r"))
	}
	return content
}

// check refuses what no server would take for a password, and what would be cut short on the wire.
func check(value []byte) error {
	switch {
	case len(value) == 0:
		return ErrEmpty
	case len(value) > MaxSecretBytes:
		return ErrTooLarge
	case bytes.IndexByte(value, 0) >= 0:
		return ErrNUL
	}
	return nil
}
