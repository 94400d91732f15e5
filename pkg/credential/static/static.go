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
	spec := doc.Spec.Static
	return &source{name: doc.Metadata.Name, username: spec.Username, password: newSecret(spec.Password, files)}
}

// Read reads a secret that is no source's. The caller may overwrite it.
func Read(ctx context.Context, from v1alpha1.SecretSource, files Files) ([]byte, error) {
	return newSecret(from, files).read(ctx)
}

type source struct {
	name, username string
	password       secret
}

// A secret is where one is read from.
type secret struct {
	from  v1alpha1.SecretSource
	files Files
	// variable is the value of the variable that from names, a closure as secrets are.
	variable func() (string, bool)
}

func newSecret(from v1alpha1.SecretSource, files Files) secret {
	s := secret{from: from, files: files}
	if from.Env != "" {
		value, ok := os.LookupEnv(from.Env)
		s.variable = func() (string, bool) { return value, ok }
	}
	return s
}

// Issue reads the password and gives a lease that does not expire; releasing it clears the password.
func (s *source) Issue(ctx context.Context, _ credential.Request) (*credential.Lease, error) {
	value, err := s.password.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("credential source %s: %w", s.name, err)
	}
	password := credential.NewSecret(value)
	return &credential.Lease{
		Source:   s.name,
		Username: s.username,
		Password: password,
		Expires:  time.Time{},
		Release: func(context.Context) error {
			password.Clear()
			return nil
		},
	}, nil
}

func (s secret) read(ctx context.Context) ([]byte, error) {
	if s.variable != nil {
		variable, ok := s.variable()
		if !ok {
			return nil, fmt.Errorf("variable %s: %w", s.from.Env, ErrUnset)
		}
		value := []byte(variable)
		if err := check(value); err != nil {
			return nil, fmt.Errorf("variable %s: %w", s.from.Env, err)
		}
		return value, nil
	}
	content, err := s.files.ReadFile(ctx, s.from.File)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.from.File, err)
	}
	value := trimNewline(content)
	if err := check(value); err != nil {
		clear(content)
		return nil, fmt.Errorf("file %s: %w", s.from.File, err)
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
