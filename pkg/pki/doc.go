// Package pki secures both legs of a session with TLS. Towards the workload the proxy is the server: CA is the agent's own
// authority, which mints short-lived certificates for the names of targets; WriteTrust and TrustEnvironment make the programs
// of a workload trust it. Towards the target the proxy is the client: UpstreamTLS says whom it trusts there.
//
// The CA's key never leaves its file and the proxy's memory. It is made on the machine at the first start, and signs nothing
// but leaves: its certificate allows no further authority below it.
package pki
