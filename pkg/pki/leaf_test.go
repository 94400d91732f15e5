package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve accepts TLS connections until the test ends, greets on each, and is at the address.
func serve(t *testing.T, config *tls.Config) (address string) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(conn, "hello\n")
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr().String()
}

// greet dials and reads the greeting.
func greet(address string, config *tls.Config) error {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: config}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	greeting, err := io.ReadAll(conn)
	if err == nil && string(greeting) != "hello\n" {
		err = fmt.Errorf("read %q", greeting)
	}
	return err
}

func TestClientVerifiesTheNamesOfTheTargetAndNoOther(t *testing.T) {
	ca := mustOpen(t, t.TempDir())
	address := serve(t, ca.ServerTLS("Orders.internal", "10.8.0.5", "2001:db8::1"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM())
	for name, good := range map[string]bool{
		"orders.internal": true, "10.8.0.5": true, "2001:db8::1": true,
		"other.internal": false, "10.8.0.6": false, "internal": false,
	} {
		err := greet(address, &tls.Config{RootCAs: roots, ServerName: name})
		if good != (err == nil) {
			t.Errorf("%s: got %v, want success %t", name, err, good)
		}
	}
	if err := greet(address, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "orders.internal"}); err == nil {
		t.Error("a client that does not trust the authority was satisfied")
	}
}

func TestServerRefusesOldVersionsOfTLS(t *testing.T) {
	ca := mustOpen(t, t.TempDir())
	address := serve(t, ca.ServerTLS("orders.internal"))
	for version, good := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		err := greet(address, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version})
		if good != (err == nil) {
			t.Errorf("%s: got %v, want success %t", tls.VersionName(version), err, good)
		}
	}
}

func TestOpenSSLVerifiesWithTheTrustFiles(t *testing.T) {
	ca := mustOpen(t, t.TempDir())
	address := serve(t, ca.ServerTLS("orders.internal", "127.0.0.1"))
	dir := filepath.Join(t.TempDir(), "trust")
	if err := ca.WriteTrust(dir); err != nil {
		t.Fatal(err)
	}
	environment := append(os.Environ(), TrustEnvironment(dir)...)
	for _, test := range []struct {
		name      string
		arguments []string
		good      bool
	}{
		{"by the variables of the trust environment", []string{"-verify_hostname", "orders.internal"}, true},
		{"by an address", []string{"-verify_ip", "127.0.0.1"}, true},
		{"with the authority alone", []string{"-CAfile", filepath.Join(dir, trustCA), "-x509_strict"}, true},
		{"not by another name", []string{"-verify_hostname", "other.internal"}, false},
		{"not with other roots", []string{"-CAfile", os.DevNull}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			arguments := append([]string{"s_client", "-connect", address, "-verify_return_error", "-brief"}, test.arguments...)
			command := exec.CommandContext(t.Context(), "openssl", arguments...)
			command.Env = environment
			output, err := command.CombinedOutput()
			if test.good != (err == nil) {
				t.Errorf("got %v, want success %t:\n%s", err, test.good, output)
			}
			if test.good && !strings.Contains(string(output), "Verification: OK") {
				t.Errorf("openssl said:\n%s", output)
			}
		})
	}
}

func TestLeafIsCachedUntilShortlyBeforeItsEnd(t *testing.T) {
	now := time.Now()
	ca, err := open(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	mint := func() *tls.Certificate {
		t.Helper()
		certificate, err := ca.Leaf("orders.internal", "10.8.0.5")
		if err != nil {
			t.Fatal(err)
		}
		return certificate
	}
	first := mint()
	if got := first.Leaf.NotAfter.Sub(now); got > leafLifetime {
		t.Errorf("a leaf lives for %s", got)
	}
	if same, err := ca.Leaf("10.8.0.5", "ORDERS.internal", "10.8.0.5"); err != nil || same != first {
		t.Errorf("the same names in another order were minted anew: %v", err)
	}
	now = now.Add(leafLifetime - leafRenewal - time.Minute)
	if mint() != first {
		t.Error("minted anew too early")
	}
	now = now.Add(2 * time.Minute)
	if mint() == first {
		t.Error("not minted anew before its end")
	}
	now = ca.certificate.NotAfter.Add(-time.Hour)
	if got := mint().Leaf.NotAfter; got.After(ca.certificate.NotAfter) {
		t.Errorf("a leaf ends at %s, after the authority", got)
	}
	now = ca.certificate.NotAfter.Add(time.Second)
	if _, err := ca.Leaf("orders.internal", "10.8.0.5"); err == nil {
		t.Error("an expired authority minted a leaf")
	}
}

func TestCacheOfLeavesIsBounded(t *testing.T) {
	now := time.Now()
	ca, err := open(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	kept, err := ca.Leaf("kept.internal")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxLeaves + 8 {
		now = now.Add(time.Millisecond)
		if _, err := ca.Leaf(fmt.Sprintf("10.0.%d.%d", i/256, i%256)); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Millisecond)
		if again, err := ca.Leaf("kept.internal"); err != nil || again != kept {
			t.Fatalf("a certificate in use was dropped: %v", err)
		}
	}
	if got := len(ca.leaves); got > maxLeaves {
		t.Errorf("%d leaves are kept, want at most %d", got, maxLeaves)
	}
}

func TestNoLeafWithoutAName(t *testing.T) {
	if certificate, err := mustOpen(t, t.TempDir()).Leaf(); err == nil {
		t.Errorf("minted %v", certificate.Leaf.Subject)
	}
}
