package credential

import (
	"fmt"
	"io"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// redacted is all that a Secret ever prints.
const redacted = "REDACTED"

// A Secret holds bytes that must not be printed. They live in a closure: fmt, encoders and loggers that walk values by
// reflection find a function there and no bytes, even below an unexported field, where they can not call methods.
// The zero Secret reveals nil. A Secret is for one goroutine; copies share the bytes.
type Secret struct {
	reveal func() []byte
	clear  func()
}

// NewSecret takes ownership of value: the caller neither changes nor keeps it.
func NewSecret(value []byte) Secret {
	return Secret{
		reveal: func() []byte { return value },
		clear: func() {
			clear(value)
			value = nil
		},
	}
}

// Reveal is the secret itself, valid until Clear; nil after it. Whoever calls it must neither print nor keep what it gives.
func (s Secret) Reveal() []byte {
	if s.reveal == nil {
		return nil
	}
	return s.reveal()
}

// Clear overwrites the bytes with zeros, for all copies of the Secret. It may be called more than once.
func (s Secret) Clear() {
	if s.clear != nil {
		s.clear()
	}
}

// Format implements fmt.Formatter: every verb prints REDACTED.
func (Secret) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, redacted) }

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (Secret) MarshalLogObject(encoder zapcore.ObjectEncoder) error {
	encoder.AddString("secret", redacted)
	return nil
}
