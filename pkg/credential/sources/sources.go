// Package sources makes the credential sources of a set of documents: one package of pkg/credential for each kind.
package sources

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/credential"
	"github.com/sallyport-dev/sallyport/pkg/credential/postgresrole"
	"github.com/sallyport-dev/sallyport/pkg/credential/static"
)

// New makes a source of each document, which are by name and valid. Variables of the environment are read here. Retire what it gives.
func New(documents map[string]v1alpha1.CredentialSource, files static.Files, log *zap.Logger) (credential.Sources, error) {
	made := make(credential.Sources, len(documents))
	for name, document := range documents {
		switch {
		case document.Spec.Static != nil:
			made[name] = static.New(document, files)
		case document.Spec.PostgresRole != nil:
			source, err := postgresrole.New(document, files, log)
			if err != nil {
				made.Retire()
				return nil, err
			}
			made[name] = source
		default:
			made.Retire()
			return nil, fmt.Errorf("credential source %s: has no kind of source", name)
		}
	}
	return made, nil
}
