package pki

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTrustFilesCanBeReadByEveryoneAndHoldWhatTheyShould(t *testing.T) {
	ca, system := mustOpen(t, t.TempDir()), mustOpen(t, t.TempDir())
	dir := t.TempDir()
	roots, empty := filepath.Join(dir, "roots.crt"), filepath.Join(dir, "empty.crt")
	for path, content := range map[string][]byte{roots: append([]byte("# a comment\n"), system.PEM()...), empty: []byte("nothing\n")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name  string
		roots []string
		want  []byte
	}{
		{"the bundle holds the system's roots and the authority", []string{filepath.Join(dir, "missing"), empty, roots}, append(system.PEM(), ca.PEM()...)},
		{"the bundle holds the authority where there are no roots", []string{empty}, ca.PEM()},
	} {
		t.Run(test.name, func(t *testing.T) {
			trust := filepath.Join(t.TempDir(), "trust")
			if err := os.Mkdir(trust, 0o700); err != nil {
				t.Fatal(err)
			}
			// Twice: what is there is replaced.
			for range 2 {
				if err := ca.writeTrust(trust, test.roots); err != nil {
					t.Fatal(err)
				}
			}
			for name, want := range map[string][]byte{trustCA: ca.PEM(), trustBundle: test.want} {
				got, err := os.ReadFile(filepath.Join(trust, name))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s is %q, %v; want %q", name, got, err, want)
				}
			}
			for name, want := range map[string]os.FileMode{".": 0o755, trustCA: 0o644, trustBundle: 0o644} {
				info, err := os.Stat(filepath.Join(trust, name))
				if err != nil {
					t.Fatal(err)
				}
				if got := info.Mode().Perm(); got != want {
					t.Errorf("%s has mode %04o, want %04o", name, got, want)
				}
			}
			entries, err := os.ReadDir(trust)
			if err != nil || len(entries) != 2 {
				t.Errorf("the directory holds %v, %v; want two files", entries, err)
			}
		})
	}
}

func TestTrustEnvironmentNamesFilesThatAreThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "trust")
	if err := mustOpen(t, t.TempDir()).WriteTrust(dir); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, variable := range TrustEnvironment(dir) {
		name, file, ok := strings.Cut(variable, "=")
		if !ok || names[name] {
			t.Errorf("variable %q", variable)
		}
		names[name] = true
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "PGSSLROOTCERT"} {
		if !names[name] {
			t.Errorf("%s is not set", name)
		}
	}
}
