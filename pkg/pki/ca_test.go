package pki

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

func mustOpen(t *testing.T, dir string) *CA {
	t.Helper()
	ca, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestFirstStartMakesAnAuthorityThatLaterStartsLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "pki")
	first, second := mustOpen(t, dir), mustOpen(t, dir)
	if !bytes.Equal(first.PEM(), second.PEM()) || !first.key.Equal(second.key) {
		t.Error("the second start has another authority")
	}
	for name, want := range map[string]os.FileMode{".": 0o700, keyFile: 0o600, certificateFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, want %04o", name, got, want)
		}
	}
	if leftover, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(leftover) > 0 {
		t.Errorf("left behind: %v", leftover)
	}
}

func TestTwoAgentsHaveAuthoritiesOfDifferentNames(t *testing.T) {
	first, second := mustOpen(t, t.TempDir()), mustOpen(t, t.TempDir())
	if first.certificate.Subject.String() == second.certificate.Subject.String() {
		t.Errorf("both are %s", first.certificate.Subject)
	}
}

func TestStartsAtTheSameTimeAgreeOnOneAuthority(t *testing.T) {
	dir := t.TempDir()
	opened := make([]*CA, 8)
	var group errgroup.Group
	for i := range opened {
		group.Go(func() (err error) {
			opened[i], err = Open(dir)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, ca := range opened {
		if !bytes.Equal(ca.PEM(), opened[0].PEM()) {
			t.Fatal("two authorities were made")
		}
	}
}

func TestStartThatWasCutShortIsRepeated(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir)
	if err := os.Remove(filepath.Join(dir, certificateFile)); err != nil {
		t.Fatal(err)
	}
	ca := mustOpen(t, dir)
	if !bytes.Equal(ca.PEM(), mustOpen(t, dir).PEM()) {
		t.Error("the authority is not kept")
	}
}

func TestBadAuthorityIsRefused(t *testing.T) {
	write := func(name, content string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		now    time.Time
		is     error
		want   string
	}{
		{name: "when the key can be read by others", is: ErrKeyExposed, want: "mode is 0640; expected 0600",
			damage: func(t *testing.T, dir string) {
				if err := os.Chmod(filepath.Join(dir, keyFile), 0o640); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "when the key is another's", is: ErrMismatch,
			damage: func(t *testing.T, dir string) {
				other := t.TempDir()
				mustOpen(t, other)
				if err := os.Rename(filepath.Join(other, keyFile), filepath.Join(dir, keyFile)); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "when the key is gone", is: os.ErrNotExist,
			damage: func(t *testing.T, dir string) {
				if err := os.Remove(filepath.Join(dir, keyFile)); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "when it has expired", now: time.Now().Add(caLifetime + time.Hour), is: ErrExpired, want: "remove ca.key and ca.crt"},
		{name: "when it is not valid yet", now: time.Now().Add(-2 * backdate), want: "the clock may be wrong"},
		{name: "when the certificate is garbage", damage: write(certificateFile, "garbage"), want: "ca.crt: it is not one certificate"},
		{name: "when the key is garbage", damage: write(keyFile, "garbage"), want: "ca.key: it is no PKCS #8 key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			mustOpen(t, dir)
			if test.damage != nil {
				test.damage(t, dir)
			}
			now := time.Now
			if !test.now.IsZero() {
				now = func() time.Time { return test.now }
			}
			ca, err := open(dir, now)
			if ca != nil || err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v; want %v, %q", ca, err, test.is, test.want)
			}
		})
	}
}

func TestLeafCertificateIsNoAuthority(t *testing.T) {
	dir := t.TempDir()
	ca := mustOpen(t, dir)
	leaf, err := ca.Leaf("orders.internal")
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Leaf.IsCA {
		t.Error("the leaf is an authority")
	}
	if !ca.certificate.MaxPathLenZero {
		t.Error("the authority allows authorities below it")
	}
}
