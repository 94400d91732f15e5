// Package sources makes the credential sources of a set of documents: one package of pkg/credential for each kind.
package sources

import (
	"fmt"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/credential"
	"github.com/sallyport-dev/sallyport/pkg/credential/static"
)

// New makes a source of each document, which are by name and valid. Nothing is read but variables of the environment.
func New(documents map[string]v1alpha1.CredentialSource, files static.Files) (credential.Sources, error) {
	made := make(credential.Sources, len(documents))
	for name, document := range documents {
		if document.Spec.Static == nil {
			return nil, fmt.Errorf("credential source %s: has no kind of source", name)
		}
		made[name] = static.New(document, files)
	}
	return made, nil
}
