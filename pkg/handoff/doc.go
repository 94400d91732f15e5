// Package handoff is the seam between the two halves of the node agent. sallyport-capture (privileged) listens on a Unix
// socket; sallyport-proxy (unprivileged) connects, proves its user by SO_PEERCRED, and is given listeners (SCM_RIGHTS), the facts
// of their workloads, the documents in force, and, on request, the content of files that those documents name.
// The package also reads the original destination of an accepted connection from the kernel.
package handoff
