package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Errors of Open, for which an operator has to decide: whoever trusted the old authority will not trust a new one.
// Removing both files makes a new one at the next start.
var (
	ErrExpired    = errors.New("the certificate authority has expired")
	ErrKeyExposed = errors.New("the key can be read by other users")
	ErrMismatch   = errors.New("the key is not that of the certificate")
)

const (
	caLifetime = 10 * 365 * 24 * time.Hour
	// backdate allows for clocks that differ.
	backdate = time.Hour

	keyFile         = "ca.key"
	certificateFile = "ca.crt"
)

// A CA is the certificate authority of one agent. It is safe for concurrent use.
type CA struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pem         []byte
	now         func() time.Time

	mu     sync.Mutex
	leaves map[string]*leaf
}

// Open loads the authority from ca.key and ca.crt in dir, or makes it, and dir, when there is none. Two processes that open the
// same directory get the same authority.
func Open(dir string) (*CA, error) {
	return open(dir, time.Now)
}

func open(dir string, now func() time.Time) (*CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	defer unlock()

	certificatePEM, err := os.ReadFile(filepath.Join(dir, certificateFile))
	// The certificate is written last: without it, nobody can have trusted the authority, and a key is left over from a
	// start that was cut short.
	if errors.Is(err, fs.ErrNotExist) {
		if certificatePEM, err = create(dir, now()); err != nil {
			return nil, fmt.Errorf("make a certificate authority in %s: %w", dir, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	ca, err := load(dir, certificatePEM, now)
	if err != nil {
		return nil, fmt.Errorf("certificate authority in %s: %w", dir, err)
	}
	return ca, nil
}

// lock takes the exclusive lock of a file, which ends with the process if not before.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

func create(dir string, now time.Time) (certificatePEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	// The serial number in the name tells the authorities of two agents apart: OpenSSL finds issuers by name.
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Sallyport"}, CommonName: fmt.Sprintf("Sallyport agent CA %x", serial.Bytes()[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	certificatePEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := writeFile(filepath.Join(dir, keyFile), keyPEM, 0o600); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, certificateFile), certificatePEM, 0o644); err != nil {
		return nil, err
	}
	return certificatePEM, nil
}

func load(dir string, certificatePEM []byte, now func() time.Time) (*CA, error) {
	certificate, err := parseCertificate(certificatePEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certificateFile, err)
	}
	key, err := loadKey(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	switch {
	case !certificate.IsCA || certificate.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("%s: it is no certificate of an authority", certificateFile)
	case !key.PublicKey.Equal(certificate.PublicKey):
		return nil, ErrMismatch
	case now().After(certificate.NotAfter):
		return nil, fmt.Errorf("%w on %s; remove %s and %s to make a new one, and start the workloads anew",
			ErrExpired, certificate.NotAfter.Format(time.DateOnly), keyFile, certificateFile)
	case now().Before(certificate.NotBefore):
		return nil, fmt.Errorf("%s: it is valid from %s on; the clock may be wrong", certificateFile, certificate.NotBefore.Format(time.RFC3339))
	}
	return &CA{key: key, certificate: certificate, pem: certificatePEM, now: now, leaves: map[string]*leaf{}}, nil
}

func loadKey(path string) (*ecdsa.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%w: its mode is %04o; expected 0600", ErrKeyExposed, mode)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("it is no PKCS #8 key in PEM")
	}
	defer clear(block.Bytes)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("it is no ECDSA key")
	}
	return key, nil
}

// parseCertificate takes exactly one certificate.
func parseCertificate(content []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(content)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("it is not one certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// newSerial is a positive number of 126 random bits (RFC 5280 section 4.1.2.2 asks for at most 20 octets).
func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	return serial.SetBit(serial, 126, 1), nil
}

// writeFile replaces a file by one that is whole, on disk, and has the mode whatever the umask.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(content)
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
