package config

import (
	"errors"
	"strings"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/policy"
)

// compile compiles the policies that are valid by themselves, and says where expressions do not.
func (b *builder) compile(documents []*document) {
	var policies []v1alpha1.AccessPolicy
	byName := map[string]*document{}
	for _, document := range documents {
		if document.valid() {
			policies = append(policies, *document.object.(*v1alpha1.AccessPolicy))
			byName[document.name] = document
		}
	}
	set, err := policy.Compile(policies)
	var faults policy.Errors
	switch {
	case errors.As(err, &faults):
		for _, fault := range faults {
			// The compiler's messages may have several lines.
			message := strings.Join(strings.Fields(fault.Message), " ")
			b.problems = append(b.problems, byName[fault.Policy].problem(fault.Field, message))
		}
	case err != nil:
		b.problems = append(b.problems, Problem{Message: err.Error()})
	}
	b.snapshot.Compiled = set
}
