package pki

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

func TestUpstreamTLSAgainstAServer(t *testing.T) {
	ca, other := mustOpen(t, t.TempDir()), mustOpen(t, t.TempDir())
	server := ca.ServerTLS("orders.internal", "127.0.0.1")
	server.MinVersion = tls.VersionTLS10
	address := serve(t, server)
	file := &v1alpha1.FileSource{File: "/etc/pg/ca.pem"}
	for _, test := range []struct {
		name string
		spec *v1alpha1.UpstreamTLS
		ca   []byte
		want string // "" is success
	}{
		{name: "verify-full takes a trusted certificate of the right name", ca: ca.PEM(),
			spec: &v1alpha1.UpstreamTLS{Mode: v1alpha1.TLSVerifyFull, CA: file, ServerName: "orders.internal"}},
		{name: "verify-full takes a trusted certificate of the right address", ca: ca.PEM(),
			spec: &v1alpha1.UpstreamTLS{Mode: v1alpha1.TLSVerifyFull, CA: file, ServerName: "127.0.0.1"}},
		{name: "verify-full is the default", ca: ca.PEM(), want: "other.internal",
			spec: &v1alpha1.UpstreamTLS{CA: file, ServerName: "other.internal"}},
		{name: "verify-full refuses another name", ca: ca.PEM(), want: "other.internal",
			spec: &v1alpha1.UpstreamTLS{Mode: v1alpha1.TLSVerifyFull, CA: file, ServerName: "other.internal"}},
		{name: "verify-full refuses another authority", ca: other.PEM(), want: "unknown authority",
			spec: &v1alpha1.UpstreamTLS{Mode: v1alpha1.TLSVerifyFull, CA: file, ServerName: "orders.internal"}},
		{name: "verify-full trusts the system's roots without a file", want: "unknown authority",
			spec: &v1alpha1.UpstreamTLS{Mode: v1alpha1.TLSVerifyFull, ServerName: "orders.internal"}},
		{name: "no spec is verify-full by the name that is dialled", want: "unknown authority"},
		{name: "require takes any certificate", spec: &v1alpha1.UpstreamTLS{Mode: v1alpha1.TLSRequire}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config, err := UpstreamTLS(test.spec, test.ca)
			if err != nil {
				t.Fatal(err)
			}
			err = greet(address, config)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestUpstreamTLSRefusesOldServers(t *testing.T) {
	ca := mustOpen(t, t.TempDir())
	server := ca.ServerTLS("orders.internal")
	server.MinVersion, server.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	config, err := UpstreamTLS(&v1alpha1.UpstreamTLS{Mode: v1alpha1.TLSRequire}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := greet(serve(t, server), config); err == nil {
		t.Error("TLS 1.1 was taken")
	}
}

func TestUpstreamTLSIsNilWhenDisabled(t *testing.T) {
	config, err := UpstreamTLS(&v1alpha1.UpstreamTLS{Mode: v1alpha1.TLSDisable}, nil)
	if config != nil || err != nil {
		t.Errorf("got %v, %v", config, err)
	}
}

func TestUpstreamTLSRefusesWhatItCanNotTrust(t *testing.T) {
	const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	good := string(mustOpen(t, t.TempDir()).PEM())
	file := &v1alpha1.FileSource{File: "/etc/pg/ca.pem"}
	for _, test := range []struct {
		name, ca, want string
		spec           v1alpha1.UpstreamTLS
	}{
		{"an unknown mode", "", "tls mode \"prefer\"", v1alpha1.UpstreamTLS{Mode: "prefer"}},
		{"a file without content", "", "/etc/pg/ca.pem: no certificate", v1alpha1.UpstreamTLS{CA: file}},
		{"a file without a certificate", "hello", "no certificate", v1alpha1.UpstreamTLS{CA: file}},
		{"a broken certificate after a good one", good + broken, "certificate 2", v1alpha1.UpstreamTLS{CA: file}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config, err := UpstreamTLS(&test.spec, []byte(test.ca))
			if config != nil || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v; want %q", config, err, test.want)
			}
		})
	}
}

func TestWithoutANameNoServerIsTaken(t *testing.T) {
	ca := mustOpen(t, t.TempDir())
	config, err := UpstreamTLS(&v1alpha1.UpstreamTLS{CA: &v1alpha1.FileSource{File: "/ca.pem"}}, ca.PEM())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialTimeout("tcp", serve(t, ca.ServerTLS("orders.internal")), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := tls.Client(conn, config).HandshakeContext(t.Context()); err == nil {
		t.Error("a server was taken without a name to verify")
	}
}
