package postgres

import (
	"bytes"
	"crypto/md5"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/xdg-go/scram"

	"github.com/sallyport-dev/sallyport/pkg/credential"
)

// Authentication requests; "Message Formats" in the PostgreSQL manual.
const (
	authOk           = 0
	authCleartext    = 3
	authMD5          = 5
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

const (
	scramSHA256     = "SCRAM-SHA-256"
	scramSHA256Plus = "SCRAM-SHA-256-PLUS"
)

// authenticate logs in with the lease. verified says that the server's certificate was checked: a password in clear goes to nobody else.
// The lease's secret is cleared in the end.
func (u *upstream) authenticate(lease *credential.Lease, verified bool) error {
	defer lease.Password.Clear()
	proven := true // false while the server has still to prove that it knows the password
	for {
		typ, body, err := u.read()
		if err != nil {
			return err
		}
		r := reader{p: body}
		method := r.uint32()
		if typ != 'R' || r.bad {
			return fmt.Errorf("message %q in the place of an authentication request", typ)
		}
		switch method {
		case authOk:
			if !proven {
				return errors.New("the server ended SCRAM without proving that it knows the password")
			}
			return nil
		case authCleartext:
			if !verified {
				return errors.New("the server asks for the password in clear, which is only sent over verified TLS")
			}
			err = u.sendPassword(lease.Password.Reveal())
		case authMD5:
			salt := r.take(4)
			if !r.end() {
				return errors.New("malformed authentication request")
			}
			err = u.sendPassword(md5Password(lease.Username, lease.Password.Reveal(), salt))
		case authSASL:
			proven = false
			if err = u.scram(mechanisms(&r), lease.Password.Reveal()); err == nil {
				proven = true
			}
		default:
			return fmt.Errorf("the server asks for authentication method %d, which is not supported", method)
		}
		if err != nil {
			return err
		}
	}
}

func (u *upstream) sendPassword(password []byte) error {
	message := binary.BigEndian.AppendUint32([]byte{'p'}, uint32(4+len(password)+1))
	message = append(append(message, password...), 0)
	defer clear(message)
	_, err := u.conn.Write(message)
	return err
}

// md5Password is "md5" and the hash of the salted hash, as AuthenticationMD5Password wants it.
func md5Password(user string, password, salt []byte) []byte {
	inner := md5.Sum(append(bytes.Clone(password), user...))
	outer := md5.Sum(append([]byte(hex.EncodeToString(inner[:])), salt...))
	return []byte("md5" + hex.EncodeToString(outer[:]))
}

func mechanisms(r *reader) []string {
	var names []string
	for {
		name := string(r.cstring())
		if name == "" {
			return names
		}
		names = append(names, name)
	}
}

// scram makes the SCRAM-SHA-256 exchange (RFC 5802, RFC 7677), bound to the TLS channel where the server offers it.
func (u *upstream) scram(offered []string, password []byte) error {
	client, err := scram.SHA256.NewClient("", string(password), "")
	if err != nil { // not a string for SASLprep: PostgreSQL takes the bytes as they are
		if client, err = scram.SHA256.NewClientUnprepped("", string(password), ""); err != nil {
			return err
		}
	}
	has := func(name string) bool {
		for _, o := range offered {
			if o == name {
				return true
			}
		}
		return false
	}
	mechanism, conversation := scramSHA256, client.NewConversation()
	if c, ok := u.conn.(*tls.Conn); ok {
		state := c.ConnectionState()
		switch {
		case has(scramSHA256Plus):
			binding, err := scram.NewTLSServerEndpointBinding(&state)
			if err != nil {
				return fmt.Errorf("channel binding: %w", err)
			}
			mechanism, conversation = scramSHA256Plus, client.NewConversationWithChannelBinding(binding)
		default:
			// Tells the server that this end could have bound, so that nobody in between hides its offer.
			conversation = client.NewConversationAdvertisingChannelBinding()
		}
	}
	if !has(mechanism) {
		return fmt.Errorf("the server offers %s; %s is supported", strings.Join(offered, ", "), scramSHA256)
	}
	first, err := conversation.Step("")
	if err != nil {
		return err
	}
	length := string(binary.BigEndian.AppendUint32(nil, uint32(len(first))))
	if _, err := u.conn.Write(appendMessage(nil, 'p', mechanism, "\x00", length, first)); err != nil {
		return err
	}
	challenge, err := u.sasl(authSASLContinue)
	if err != nil {
		return err
	}
	final, err := conversation.Step(challenge)
	if err != nil {
		return err
	}
	if _, err := u.conn.Write(appendMessage(nil, 'p', final)); err != nil {
		return err
	}
	outcome, err := u.sasl(authSASLFinal)
	if err != nil {
		return err
	}
	if _, err := conversation.Step(outcome); err != nil {
		return err
	}
	if !conversation.Valid() {
		return errors.New("the server does not know the password")
	}
	return nil
}

func (u *upstream) sasl(want uint32) (string, error) {
	typ, body, err := u.read()
	if err != nil {
		return "", err
	}
	r := reader{p: body}
	if got := r.uint32(); typ != 'R' || r.bad || got != want {
		return "", fmt.Errorf("message %q, authentication %d, in the middle of SCRAM", typ, got)
	}
	return string(r.p), nil
}
