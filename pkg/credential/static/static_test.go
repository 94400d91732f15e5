package static

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/credential"
)

// memory holds files; it hands out copies and obeys the context, as the real reader does.
type memory map[string][]byte

func (m memory) ReadFile(ctx context.Context, path string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	content, ok := m[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(content), nil
}

func document(password v1alpha1.SecretSource) v1alpha1.CredentialSource {
	return v1alpha1.CredentialSource{
		Metadata: v1alpha1.ObjectMeta{Name: "orders-app"},
		Spec:     v1alpha1.CredentialSourceSpec{Static: &v1alpha1.StaticCredential{Username: "app", Password: password}},
	}
}

func TestPasswordFromFile(t *testing.T) {
	large := strings.Repeat("x", MaxSecretBytes)
	for _, test := range []struct {
		name, content, want string
		err                 error
	}{
		{name: "the content is the password", content: "hunter2", want: "hunter2"},
		{name: "one newline is dropped", content: "hunter2\n", want: "hunter2"},
		{name: "one newline of Windows is dropped", content: "hunter2\r\n", want: "hunter2"},
		{name: "a second newline belongs to the password", content: "hunter2\n\n", want: "hunter2\n"},
		{name: "a carriage return alone belongs to the password", content: "hunter2\r", want: "hunter2\r"},
		{name: "spaces belong to the password", content: " hunter2 \n", want: " hunter2 "},
		{name: "the largest password is taken", content: large, want: large},
		{name: "an empty file is refused", content: "", err: ErrEmpty},
		{name: "a file of one newline is refused", content: "\n", err: ErrEmpty},
		{name: "a NUL byte is refused", content: "hunter\x002", err: ErrNUL},
		{name: "a larger file is refused", content: large + "x", err: ErrTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := New(document(v1alpha1.SecretSource{File: "/run/secrets/orders"}), memory{"/run/secrets/orders": []byte(test.content)})
			lease, err := source.Issue(context.Background(), credential.Request{Workload: "w", Target: "t", Session: "s"})
			if !errors.Is(err, test.err) {
				t.Fatalf("got error %v, want %v", err, test.err)
			}
			if err != nil {
				if strings.Contains(err.Error(), "hunter") || !strings.Contains(err.Error(), "orders-app") {
					t.Errorf("error is %q", err)
				}
				return
			}
			if got := string(lease.Password.Reveal()); got != test.want || lease.Username != "app" || lease.Source != "orders-app" {
				t.Errorf("got %s, %s, password %q; want password %q", lease.Source, lease.Username, got, test.want)
			}
		})
	}
}

func TestFileIsReadForEachLeaseAndReleaseClearsOnlyItsOwn(t *testing.T) {
	files := memory{"/p": []byte("first")}
	source := New(document(v1alpha1.SecretSource{File: "/p"}), files)
	first, err := source.Issue(context.Background(), credential.Request{})
	if err != nil {
		t.Fatal(err)
	}
	files["/p"] = []byte("second")
	second, err := source.Issue(context.Background(), credential.Request{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := first.Release(context.Background()); err != nil {
			t.Errorf("release: %v", err)
		}
	}
	if first.Password.Reveal() != nil || string(second.Password.Reveal()) != "second" || !second.Expires.IsZero() {
		t.Errorf("got %q and %q", first.Password.Reveal(), second.Password.Reveal())
	}
}

func TestErrorsNameTheSourceAndTheCause(t *testing.T) {
	source := New(document(v1alpha1.SecretSource{File: "/missing"}), memory{})
	_, err := source.Issue(context.Background(), credential.Request{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "credential source orders-app: read /missing") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err = source.Issue(ctx, credential.Request{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v with a cancelled context", err)
	}
}

func TestPasswordFromTheEnvironmentOfTheStart(t *testing.T) {
	t.Setenv("ORDERS_PASSWORD", "hunter2")
	source := New(document(v1alpha1.SecretSource{Env: "ORDERS_PASSWORD"}), memory{})
	t.Setenv("ORDERS_PASSWORD", "changed later")
	for range 2 {
		lease, err := source.Issue(context.Background(), credential.Request{})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(lease.Password.Reveal()); got != "hunter2" {
			t.Errorf("got %q", got)
		}
		if err := lease.Release(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestUnsetAndEmptyVariablesAreRefused(t *testing.T) {
	t.Setenv("EMPTY_PASSWORD", "")
	for name, want := range map[string]error{"EMPTY_PASSWORD": ErrEmpty, "SALLYPORT_TEST_UNSET": ErrUnset} {
		_, err := New(document(v1alpha1.SecretSource{Env: name}), memory{}).Issue(context.Background(), credential.Request{})
		if !errors.Is(err, want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
}
