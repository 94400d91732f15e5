// Package e2e tests the whole of Sallyport as people run it: the commands as they ship, the machine's own kernel, a real PostgreSQL,
// and unmodified clients inside workloads. It needs root, and fails without it.
package e2e
