package config

import (
	"fmt"
	"slices"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

// build checks what documents say of each other and makes the Snapshot of them; it is of use only when no problem was found
// here or before.
func build(documents []*document) (*Snapshot, []Problem) {
	b := builder{
		snapshot: &Snapshot{
			Targets:           map[string]v1alpha1.Target{},
			CredentialSources: map[string]v1alpha1.CredentialSource{},
			Policies:          map[string]v1alpha1.AccessPolicy{},
		},
		first: map[string]*document{},
	}
	var policies []*document
	for _, document := range documents {
		if b.isDuplicate(document) {
			continue
		}
		switch object := document.object.(type) {
		case *v1alpha1.Target:
			b.snapshot.Targets[document.name] = *object
		case *v1alpha1.CredentialSource:
			b.snapshot.CredentialSources[document.name] = *object
		case *v1alpha1.AccessPolicy:
			b.snapshot.Policies[document.name] = *object
			policies = append(policies, document)
		}
	}
	b.checkReferences(documents)
	b.checkDestinations(documents)
	b.compile(policies)
	return b.snapshot, b.problems
}

type builder struct {
	snapshot *Snapshot
	// first is the document that has a kind and name first.
	first    map[string]*document
	problems []Problem
}

func (b *builder) isDuplicate(document *document) bool {
	if document.kind == "" || document.name == "" {
		return false
	}
	key := document.kind + "/" + document.name
	if first, ok := b.first[key]; ok {
		b.problems = append(b.problems, document.problem("metadata.name",
			fmt.Sprintf("is taken by the %s at %s; expected names that are unique within a kind", document.kind, first.place())))
		return true
	}
	b.first[key] = document
	return false
}

// checkReferences asks that whatever a document names is there. A document that is there and broken counts.
func (b *builder) checkReferences(documents []*document) {
	for _, document := range documents {
		switch object := document.object.(type) {
		case *v1alpha1.Target:
			b.checkReference(document, "spec.credential", v1alpha1.KindCredentialSource, object.Spec.Credential)
		case *v1alpha1.AccessPolicy:
			for i, name := range object.Spec.Targets {
				b.checkReference(document, fmt.Sprintf("spec.targets[%d]", i), v1alpha1.KindTarget, name)
			}
		}
	}
}

func (b *builder) checkReference(document *document, field, kind, name string) {
	if _, ok := b.first[kind+"/"+name]; ok || document.isFaulty(field) {
		return
	}
	var known []string
	for _, other := range b.first {
		if other.kind == kind {
			known = append(known, other.name)
		}
	}
	slices.Sort(known)
	message := fmt.Sprintf("found %q; expected the name of a %s that exists", name, kind)
	if near := nearest(name, known); near != "" {
		message += fmt.Sprintf(": did you mean %s?", near)
	}
	b.problems = append(b.problems, document.problem(field, message))
}

// checkDestinations asks that no two targets claim the same destination. Ranges of different lengths may lie within each
// other: the most specific one has it.
func (b *builder) checkDestinations(documents []*document) {
	type claim struct {
		document *document
		field    string
	}
	claims := map[string]claim{}
	for _, document := range documents {
		target, ok := document.object.(*v1alpha1.Target)
		if !ok || !document.valid() {
			continue
		}
		for i, endpoint := range target.Spec.Endpoints {
			field := fmt.Sprintf("spec.endpoints[%d]", i)
			if other, ok := claims[endpoint.Key()]; ok {
				b.problems = append(b.problems, document.problem(field, fmt.Sprintf(
					"%s is claimed by %s of Target/%s at %s; expected each destination to belong to one target",
					endpoint.Key(), other.field, other.document.name, other.document.place())))
				continue
			}
			claims[endpoint.Key()] = claim{document, field}
		}
	}
}
