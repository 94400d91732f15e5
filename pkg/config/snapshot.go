package config

import (
	"fmt"
	"maps"
	"slices"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/policy"
)

// A Snapshot is a whole, valid set of documents with their defaults filled in. It is immutable: it is shared between
// goroutines and replaced as a whole; nobody changes what it holds.
type Snapshot struct {
	// Targets, CredentialSources and Policies are by name.
	Targets           map[string]v1alpha1.Target
	CredentialSources map[string]v1alpha1.CredentialSource
	Policies          map[string]v1alpha1.AccessPolicy
	// Compiled is Policies, ready to decide.
	Compiled *policy.Set
}

// Empty is true when there is no document at all: nothing is protected then.
func (s *Snapshot) Empty() bool {
	return len(s.Targets)+len(s.CredentialSources)+len(s.Policies) == 0
}

// NamedFiles are the absolute paths of all files that documents name: passwords, keys and certificate authorities.
func (s *Snapshot) NamedFiles() map[string]struct{} {
	files := map[string]struct{}{}
	for _, target := range s.Targets {
		if tls := target.Spec.Upstream.TLS; tls != nil && tls.CA != nil {
			files[tls.CA.File] = struct{}{}
		}
	}
	for _, source := range s.CredentialSources {
		if static := source.Spec.Static; static != nil && static.Password.File != "" {
			files[static.Password.File] = struct{}{}
		}
		if role := source.Spec.PostgresRole; role != nil {
			if role.Admin.Password.File != "" {
				files[role.Admin.Password.File] = struct{}{}
			}
			if role.TLS.CA != nil {
				files[role.TLS.CA.File] = struct{}{}
			}
		}
	}
	for _, policy := range s.Policies {
		if key := policy.Spec.Masking.HashKey; key != nil && key.File != "" {
			files[key.File] = struct{}{}
		}
		if policy.Spec.Approvals == nil {
			continue
		}
		hook := policy.Spec.Approvals.Webhook
		if hook.Secret.File != "" {
			files[hook.Secret.File] = struct{}{}
		}
		if hook.CA != nil {
			files[hook.CA.File] = struct{}{}
		}
	}
	return files
}

// CgroupSelectors are the distinct cgroup selectors of all policies, sorted: the workloads to enrol.
func (s *Snapshot) CgroupSelectors() []string {
	selectors := map[string]struct{}{}
	for _, policy := range s.Policies {
		for _, workload := range policy.Spec.Workloads {
			selectors[workload.Cgroup] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(selectors))
}

// Warnings are sentences on what is valid and yet seldom meant, sorted.
func (s *Snapshot) Warnings() []string {
	if s.Empty() {
		return []string{"there is no document: nothing is protected"}
	}
	var warnings []string
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	usedTargets, usedSources := map[string]bool{}, map[string]bool{}
	for _, policy := range s.Policies {
		for _, name := range policy.Spec.Targets {
			usedTargets[name] = true
		}
	}
	for name, target := range s.Targets {
		usedSources[target.Spec.Credential] = true
		if !usedTargets[name] {
			warn("Target/%s: no AccessPolicy names it: enrolled workloads are refused there", name)
		}
		if mode := target.Spec.Upstream.TLS.Mode; mode != v1alpha1.TLSVerifyFull {
			warn("Target/%s: spec.upstream.tls.mode is %s: whoever answers at its address is taken for the server", name, mode)
		}
	}
	for name := range s.CredentialSources {
		if !usedSources[name] {
			warn("CredentialSource/%s: no Target names it", name)
		}
	}
	slices.Sort(warnings)
	return warnings
}
