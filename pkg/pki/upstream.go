package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

// ErrNoCertificate is for a bundle of authorities in which there is none.
var ErrNoCertificate = errors.New("no certificate in PEM")

// UpstreamTLS is the client's configuration towards a target: nil for mode disable. A nil spec is verify-full with the
// system's roots. caPEM is the content of spec.CA and nil without one.
//
// The server's name is spec.ServerName; when that is "", the caller sets it to the host or address that it dials, for without a
// name crypto/tls refuses to verify. Mode require encrypts and verifies nothing, as libpq's does without a root certificate.
// TLS 1.2 is the least.
func UpstreamTLS(spec *v1alpha1.UpstreamTLS, caPEM []byte) (*tls.Config, error) {
	if spec == nil {
		spec = &v1alpha1.UpstreamTLS{}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: spec.ServerName}
	switch spec.Mode {
	case v1alpha1.TLSDisable:
		return nil, nil
	case v1alpha1.TLSRequire:
		config.InsecureSkipVerify = true
		return config, nil
	case v1alpha1.TLSVerifyFull, "":
	default:
		return nil, fmt.Errorf("tls mode %q: expected verify-full, require or disable", spec.Mode)
	}
	if spec.CA == nil {
		return config, nil
	}
	roots, err := parseBundle(caPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate authorities of %s: %w", spec.CA.File, err)
	}
	config.RootCAs = roots
	return config, nil
}

// parseBundle refuses a bundle with a broken certificate, which AppendCertsFromPEM would leave out in silence.
func parseBundle(content []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	found := 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", found+1, err)
		}
		pool.AddCert(certificate)
		found++
	}
	if found == 0 {
		return nil, ErrNoCertificate
	}
	return pool, nil
}
