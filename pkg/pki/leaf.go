package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	leafLifetime = 24 * time.Hour
	// leafRenewal is how long before its end a certificate is minted anew.
	leafRenewal = 4 * time.Hour
	// maxLeaves bounds the cache; a target that is a large range has as many names as addresses.
	maxLeaves = 1024
)

// A leaf is a certificate and when it was last asked for.
type leaf struct {
	certificate *tls.Certificate
	used        time.Time
}

// Leaf is a server's certificate for the names, which are DNS names or IP addresses; the caller says which it allows, and
// never takes them from the client. It is minted on demand and cached.
func (ca *CA) Leaf(names ...string) (*tls.Certificate, error) {
	names = canonical(names)
	key := strings.Join(names, " ")
	now := ca.now()

	ca.mu.Lock()
	defer ca.mu.Unlock()
	if cached, ok := ca.leaves[key]; ok && now.Before(cached.certificate.Leaf.NotAfter.Add(-leafRenewal)) {
		cached.used = now
		return cached.certificate, nil
	}
	certificate, err := ca.mint(names, now)
	if err != nil {
		return nil, fmt.Errorf("mint a certificate for %s: %w", key, err)
	}
	if _, ok := ca.leaves[key]; !ok && len(ca.leaves) >= maxLeaves {
		ca.evict()
	}
	ca.leaves[key] = &leaf{certificate: certificate, used: now}
	return certificate, nil
}

// ServerTLS is the configuration of a server that bears the names, whichever of them the client asks for: some clients send no
// server name, and none is sent for an address. TLS 1.2 is the least.
func (ca *CA) ServerTLS(names ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return ca.Leaf(names...)
		},
		// The configuration lives for one session: there is nothing to resume.
		SessionTicketsDisabled: true,
	}
}

func (ca *CA) mint(names []string, now time.Time) (*tls.Certificate, error) {
	if len(names) == 0 {
		return nil, errors.New("no name is given")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	end := now.Add(leafLifetime)
	if end.After(ca.certificate.NotAfter) {
		end = ca.certificate.NotAfter
	}
	if !now.Before(end) {
		return nil, ErrExpired
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Sallyport"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The authority is sent too: a client that was given no file can show it, and one that was needs no more.
	return &tls.Certificate{Certificate: [][]byte{der, ca.certificate.Raw}, PrivateKey: key, Leaf: parsed}, nil
}

// evict drops the certificate that was not asked for longest. The caller holds mu.
func (ca *CA) evict() {
	var (
		oldest string
		used   time.Time
	)
	for key, leaf := range ca.leaves {
		if oldest == "" || leaf.used.Before(used) {
			oldest, used = key, leaf.used
		}
	}
	delete(ca.leaves, oldest)
}

// canonical is the names in lower case, v4-mapped addresses as IPv4, sorted, each once.
func canonical(names []string) []string {
	result := make([]string, 0, len(names))
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			name = addr.Unmap().WithZone("").String()
		}
		result = append(result, strings.ToLower(name))
	}
	slices.Sort(result)
	return slices.Compact(result)
}
