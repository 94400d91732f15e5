package sources

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/credential"
)

type files string

func (f files) ReadFile(context.Context, string) ([]byte, error) { return []byte(f), nil }

func TestEachDocumentBecomesASource(t *testing.T) {
	documents := map[string]v1alpha1.CredentialSource{"orders-app": {
		Metadata: v1alpha1.ObjectMeta{Name: "orders-app"},
		Spec: v1alpha1.CredentialSourceSpec{Static: &v1alpha1.StaticCredential{
			Username: "app", Password: v1alpha1.SecretSource{File: "/run/secrets/orders"}}},
	}}
	made, err := New(documents, files("hunter2"), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	lease, err := made.Issue(context.Background(), "orders-app", credential.Request{})
	if err != nil {
		t.Fatal(err)
	}
	if lease.Username != "app" || string(lease.Password.Reveal()) != "hunter2" {
		t.Errorf("got %s, %q", lease.Username, lease.Password.Reveal())
	}
}

func TestDocumentWithoutAKindOfSourceIsRefused(t *testing.T) {
	made, err := New(map[string]v1alpha1.CredentialSource{"bad": {}}, files(""), zap.NewNop())
	if made != nil || err == nil || !strings.Contains(err.Error(), "credential source bad") {
		t.Errorf("got %v, %v", made, err)
	}
}
