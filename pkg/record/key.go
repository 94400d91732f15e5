package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Errors of OpenStore about the key; an operator has to decide. Whoever moves the state directory's record away starts a new one.
var (
	ErrKeyExposed  = errors.New("the key can be read by other users")
	ErrKeyMismatch = errors.New("the key is not the one that the record was begun with")
)

// createKey makes record.key and record.pub.
func createKey(dir string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	content := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(content)
	if err := replaceFile(filepath.Join(dir, keyName), content, 0o600); err != nil {
		return nil, err
	}
	return key, syncDirectory(dir)
}

// loadKey reads record.key.
func loadKey(dir string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, keyName)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: %w: its mode is %04o, expected 0600", keyName, ErrKeyExposed, mode)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	block, rest := pem.Decode(content)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) > 0 {
		return nil, fmt.Errorf("%s: it is not one PKCS #8 key in PEM", keyName)
	}
	defer clear(block.Bytes)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyName, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: it is no Ed25519 key", keyName)
	}
	return key, nil
}

// publishKey writes record.pub where it is missing, and refuses one of another key.
func publishKey(dir string, key ed25519.PublicKey) error {
	path := filepath.Join(dir, publicName)
	want, err := encodePublicKey(key)
	if err != nil {
		return err
	}
	have, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return replaceFile(path, want, 0o644)
	}
	if err == nil && !bytes.Equal(have, want) {
		err = fmt.Errorf("%s: %w", publicName, ErrKeyMismatch)
	}
	return err
}

func encodePublicKey(key ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// ParsePublicKey reads a public key as record.pub holds it: PEM of a SubjectPublicKeyInfo (RFC 8410).
func ParsePublicKey(content []byte) (ed25519.PublicKey, error) {
	block, rest := pem.Decode(content)
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 {
		return nil, errors.New("it is not one public key in PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("it is no Ed25519 key")
	}
	return key, nil
}

// The texts that are signed. Each begins with its own line, so that no signature serves for another text.

func openText(id string, first hash) []byte {
	return fmt.Appendf(nil, "sallyport record v1 open\nsession %s\nfirst %s\n", id, first)
}

func sealText(id string, events uint64, last hash, sealed time.Time) []byte {
	return fmt.Appendf(nil, "sallyport record v1 seal\nsession %s\nevents %d\nlast %s\ntime %s\n",
		id, events, last, appendTime(nil, sealed))
}

// ledgerText is what is signed in the ledger itself: all lines up to a chain's end.
func ledgerText(end chain) []byte {
	return fmt.Appendf(nil, "sallyport record v1 ledger\ncount %d\nlast %s\n", end.seq, end.hash)
}

// prunedText is what a pruned line behind end signs.
func prunedText(end chain, l *prunedLine) []byte {
	return fmt.Appendf(nil, "sallyport record v1 pruned\ncount %d\nlast %s\nby %q\nbefore %s\nsessions %s\n",
		end.seq, end.hash, l.By, appendTime(nil, l.Before), strings.Join(l.Sessions, ","))
}

func headText(count uint64, last hash, written time.Time) []byte {
	return fmt.Appendf(nil, "sallyport record v1 head\ncount %d\nlast %s\ntime %s\n", count, last, appendTime(nil, written))
}

// signed is true when signature is an Ed25519 signature (RFC 8032) of text by key.
func signed(key ed25519.PublicKey, text, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, text, signature)
}
