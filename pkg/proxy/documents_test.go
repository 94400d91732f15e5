package proxy

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

const maskedDocuments = `apiVersion: sallyport.dev/v1alpha1
kind: CredentialSource
metadata: {name: app}
spec:
  static: {username: app, password: {file: /run/secrets/app}}
---
apiVersion: sallyport.dev/v1alpha1
kind: Target
metadata: {name: db}
spec:
  protocol: postgres
  endpoints: [{host: 127.0.0.1, port: 5432}]
  credential: app
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: shop}
spec:
  workloads: [{cgroup: /shop}]
  targets: [db]
  rules: [{name: all, action: allow}]
  masks: [{columns: ["*.ssn"], with: hash}]
  masking: {hashKey: {file: /run/secrets/key}}
`

// secretFiles gives the contents of files by their paths.
type secretFiles map[string]string

func (f secretFiles) ReadFile(_ context.Context, path string) ([]byte, error) {
	content, ok := f[path]
	if !ok {
		return nil, errors.New("there is no such file")
	}
	return []byte(content), nil
}

func TestDocumentsWhoseKeyCanNotBeReadChangeNothing(t *testing.T) {
	files := secretFiles{"/run/secrets/key": "0123456789abcdef\n"}
	p := New(Options{Files: files, Metrics: NewMetrics(prometheus.NewRegistry()), Log: zap.NewNop()})
	documents := handoff.Documents{Files: []handoff.File{{Path: "all.yaml", Content: []byte(maskedDocuments)}}}
	if err := p.Documents(documents); err != nil {
		t.Fatal(err)
	}
	good := p.documents.Load()
	for name, content := range map[string]string{"it is not there": "", "it is short": "0123456789abcde\n"} {
		t.Run(name, func(t *testing.T) {
			if content == "" {
				delete(files, "/run/secrets/key")
			} else {
				files["/run/secrets/key"] = content
			}
			err := p.Documents(documents)
			if err == nil || !strings.Contains(err.Error(), "policy shop: spec.masking.hashKey") || strings.Contains(err.Error(), "0123") {
				t.Errorf("got %v", err)
			}
			if p.documents.Load() != good {
				t.Error("other documents are in force")
			}
		})
	}
}
