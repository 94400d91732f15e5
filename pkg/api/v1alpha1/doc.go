// Package v1alpha1 holds the documents that operators write: Target, CredentialSource and AccessPolicy, with their
// defaults and validation. The same YAML is read from a directory on one host and, later, from Kubernetes.
//
// It is the bottom of the house: it imports nothing of Sallyport. Parsing with file, line and field lives in pkg/config;
// compiling the CEL of a policy in pkg/policy.
package v1alpha1

// APIVersion is the group and version that every document names.
const APIVersion = "sallyport.dev/v1alpha1"
