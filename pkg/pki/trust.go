package pki

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
)

// Names of the trust files.
const (
	trustCA     = "ca.pem"
	trustBundle = "bundle.pem"
)

// systemRoots are where distributions keep the bundle of the authorities that they trust; the first that is there is taken.
var systemRoots = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Alpine, Arch, Gentoo
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL, Fedora
	"/etc/pki/tls/certs/ca-bundle.crt",                  // older RHEL, Fedora
	"/etc/ssl/ca-bundle.pem",                            // SUSE
	"/etc/pki/tls/cacert.pem",                           // OpenELEC
	"/etc/ssl/cert.pem",                                 // Alpine, BSDs
}

// PEM is the authority's certificate.
func (ca *CA) PEM() []byte { return bytes.Clone(ca.pem) }

// WriteTrust writes ca.pem, the authority alone, and bundle.pem, the system's roots and the authority, into dir, which it
// makes if need be. Both can be read by everyone and are replaced atomically. Without system roots, bundle.pem is ca.pem.
func (ca *CA) WriteTrust(dir string) error {
	if err := ca.writeTrust(dir, systemRoots); err != nil {
		return fmt.Errorf("write trust files: %w", err)
	}
	return nil
}

func (ca *CA) writeTrust(dir string, roots []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// The umask of a daemon may have made it private; workloads are other users.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, trustCA), ca.pem, 0o644); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, trustBundle), append(firstBundle(roots), ca.pem...), 0o644)
}

// firstBundle is the certificates of the first file that has any, without the comments that some carry.
func firstBundle(paths []string) []byte {
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var bundle []byte
		for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "CERTIFICATE" {
				bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
			}
		}
		if len(bundle) > 0 {
			return bundle
		}
	}
	return nil
}

// TrustEnvironment is the variables, as NAME=value, by which programs trust what WriteTrust wrote into dir. Most of them
// replace what a program trusts otherwise, and so name the bundle. Set only those that are unset: a user's own choice holds.
//
// PGSSLROOTCERT has a second effect: libpq verifies the chain even with sslmode=require ("SSL Support" in the PostgreSQL
// manual). Java is left out: it has no variable that does not shadow the program's own setting.
func TrustEnvironment(dir string) []string {
	bundle := filepath.Join(dir, trustBundle)
	return []string{
		"SSL_CERT_FILE=" + bundle,                            // OpenSSL, and with it Python, Ruby, .NET; Go
		"REQUESTS_CA_BUNDLE=" + bundle,                       // Python requests
		"CURL_CA_BUNDLE=" + bundle,                           // curl
		"AWS_CA_BUNDLE=" + bundle,                            // AWS SDKs and command line
		"PIP_CERT=" + bundle,                                 // pip
		"GIT_SSL_CAINFO=" + bundle,                           // git
		"CARGO_HTTP_CAINFO=" + bundle,                        // cargo
		"DENO_CERT=" + bundle,                                // Deno
		"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=" + bundle,         // gRPC C core
		"NODE_EXTRA_CA_CERTS=" + filepath.Join(dir, trustCA), // Node.js, which adds it to its own roots
		"PGSSLROOTCERT=" + bundle,                            // libpq, pgx, Npgsql
	}
}
