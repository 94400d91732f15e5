package v1alpha1

// Kinds of documents.
const (
	KindTarget           = "Target"
	KindCredentialSource = "CredentialSource"
	KindAccessPolicy     = "AccessPolicy"
)

// ProtocolPostgres is PostgreSQL's frontend/backend protocol, version 3.0.
const ProtocolPostgres = "postgres"

// TypeMeta names the version and kind of a document.
type TypeMeta struct {
	// APIVersion is "sallyport.dev/v1alpha1".
	APIVersion string `yaml:"apiVersion" json:"apiVersion"`
	// Kind is "Target", "CredentialSource" or "AccessPolicy".
	Kind string `yaml:"kind" json:"kind"`
}

// ObjectMeta names a document; the name is unique within its kind.
type ObjectMeta struct {
	// Name is a DNS label: lower-case letters, digits and dashes, at most 63 characters.
	Name string `yaml:"name" json:"name"`
}

// Target is a protected destination: where workloads dial it, how it is spoken to, which credential opens it.
type Target struct {
	TypeMeta `yaml:",inline" json:",inline"`
	// Metadata names the target.
	Metadata ObjectMeta `yaml:"metadata" json:"metadata"`
	// Spec is the body.
	Spec TargetSpec `yaml:"spec" json:"spec"`
}

// TargetSpec is the body of a Target.
type TargetSpec struct {
	// Protocol is what the target speaks: "postgres".
	Protocol string `yaml:"protocol" json:"protocol"`
	// Endpoints are what workloads dial. At least one.
	Endpoints []Endpoint `yaml:"endpoints" json:"endpoints"`
	// Upstream is how the proxy reaches the target.
	Upstream Upstream `yaml:"upstream,omitempty" json:"upstream,omitempty"`
	// ClientTLS says whether the proxy terminates TLS towards the client: "auto" (when the client asks), "never" or "always".
	// Default: auto.
	ClientTLS string `yaml:"clientTLS,omitempty" json:"clientTLS,omitempty"`
	// Credential is the name of the CredentialSource.
	Credential string `yaml:"credential" json:"credential"`
}

// Endpoint is one destination as workloads dial it: exactly one of Host and CIDR.
type Endpoint struct {
	// Host is a DNS name or an IP address; a name is resolved again regularly and stands for all its addresses.
	Host string `yaml:"host,omitempty" json:"host,omitempty"`
	// CIDR is a range of addresses, such as 10.8.0.0/24.
	CIDR string `yaml:"cidr,omitempty" json:"cidr,omitempty"`
	// Port is the TCP port, 1 to 65535.
	Port int `yaml:"port" json:"port"`
}

// Upstream is how the proxy reaches a target.
type Upstream struct {
	// Address is host:port to dial. Default: the original destination of the captured connection.
	Address string `yaml:"address,omitempty" json:"address,omitempty"`
	// TLS is how the upstream leg is secured. Default: verify-full with the system's roots.
	TLS *UpstreamTLS `yaml:"tls,omitempty" json:"tls,omitempty"`
	// Pool keeps connections between sessions of one workload. Default: none are kept.
	Pool *Pool `yaml:"pool,omitempty" json:"pool,omitempty"`
}

// Pool keeps upstream connections between sessions. A kept connection is reset, and used again only by the same workload with
// the same credential, database and startup.
type Pool struct {
	// MaxIdle is how many connections are kept for each such group, 1 to 1000.
	MaxIdle int `yaml:"maxIdle" json:"maxIdle"`
	// IdleTimeout is how long a connection is kept: 100ms to 1m. The server counts it as connected for as long. Default: 3s.
	IdleTimeout string `yaml:"idleTimeout,omitempty" json:"idleTimeout,omitempty"`
}

// Modes of UpstreamTLS.
const (
	TLSDisable    = "disable"
	TLSRequire    = "require"
	TLSVerifyFull = "verify-full"
)

// UpstreamTLS is how the upstream leg is secured.
type UpstreamTLS struct {
	// Mode is "verify-full" (the certificate must be trusted and bear the server's name), "require" (encrypted, not
	// authenticated) or "disable". Default: verify-full.
	Mode string `yaml:"mode,omitempty" json:"mode,omitempty"`
	// CA is a PEM bundle that verify-full trusts. Default: the system's roots.
	CA *FileSource `yaml:"ca,omitempty" json:"ca,omitempty"`
	// ServerName is the name or address that verify-full asks of the certificate. Default: the host of address, else the
	// first host of endpoints, else the address that the workload dialled.
	ServerName string `yaml:"serverName,omitempty" json:"serverName,omitempty"`
}

// FileSource is the content of a file.
type FileSource struct {
	// File is an absolute path.
	File string `yaml:"file" json:"file"`
}

// Values of TargetSpec.ClientTLS.
const (
	ClientTLSAuto   = "auto"
	ClientTLSNever  = "never"
	ClientTLSAlways = "always"
)

// CredentialSource is where upstream credentials come from.
type CredentialSource struct {
	TypeMeta `yaml:",inline" json:",inline"`
	// Metadata names the source; Targets refer to it by that name.
	Metadata ObjectMeta `yaml:"metadata" json:"metadata"`
	// Spec is the body.
	Spec CredentialSourceSpec `yaml:"spec" json:"spec"`
}

// CredentialSourceSpec is the body of a CredentialSource: exactly one kind of source.
type CredentialSourceSpec struct {
	// Static is a user name and a password that somebody else keeps up to date.
	Static *StaticCredential `yaml:"static,omitempty" json:"static,omitempty"`
	// PostgresRole is a login role that is made for a session or a workload, and dropped after it.
	PostgresRole *PostgresRole `yaml:"postgresRole,omitempty" json:"postgresRole,omitempty"`
}

// StaticCredential is a user name and a password that is read anew for each lease.
type StaticCredential struct {
	// Username is the role that the proxy logs in as.
	Username string `yaml:"username" json:"username"`
	// Password says where the password is read from.
	Password SecretSource `yaml:"password" json:"password"`
}

// SecretSource is where a secret is read from: exactly one of its fields. A secret inside a document is refused.
type SecretSource struct {
	// File is an absolute path, read for each lease; one trailing newline is dropped.
	File string `yaml:"file,omitempty" json:"file,omitempty"`
	// Env names a variable of the proxy's own start.
	Env string `yaml:"env,omitempty" json:"env,omitempty"`
}

// AccessPolicy says which workloads may do what on which targets.
type AccessPolicy struct {
	TypeMeta `yaml:",inline" json:",inline"`
	// Metadata names the policy; decisions and records call it so.
	Metadata ObjectMeta `yaml:"metadata" json:"metadata"`
	// Spec is the body.
	Spec AccessPolicySpec `yaml:"spec" json:"spec"`
}

// AccessPolicySpec is the body of an AccessPolicy.
type AccessPolicySpec struct {
	// Workloads are whom the policy is about: any of them. At least one.
	Workloads []WorkloadSelector `yaml:"workloads" json:"workloads"`
	// Targets are names of Targets. At least one.
	Targets []string `yaml:"targets" json:"targets"`
	// Rules are tried in order; the first match decides; no match denies. At least one.
	Rules []Rule `yaml:"rules" json:"rules"`
	// Record says how much of an operation its record holds.
	Record RecordOptions `yaml:"record,omitempty" json:"record,omitempty"`
	// Masks are what results do not show; the first that names a column has it. Masks of all policies for a workload and target
	// apply together, in the order of the policies' names. Default: nothing is masked.
	Masks []Mask `yaml:"masks,omitempty" json:"masks,omitempty"`
	// Masking says how the masks work.
	Masking Masking `yaml:"masking,omitempty" json:"masking,omitempty"`
	// Role is what a just-in-time role that is made under this policy may do; see PostgresRole.
	Role RoleTemplate `yaml:"role,omitempty" json:"role,omitempty"`
	// Approvals says who else is told of what rules with action "approve" hold. Default: nobody; approvers ask for themselves.
	Approvals *Approvals `yaml:"approvals,omitempty" json:"approvals,omitempty"`
}

// WorkloadSelector matches workloads.
type WorkloadSelector struct {
	// Cgroup is the path of a cgroup below the root of the cgroup v2 hierarchy, such as /sallyport/demo or
	// /system.slice/shop.service; a last element "*" matches every cgroup directly below. Descendants belong to their cgroup.
	Cgroup string `yaml:"cgroup" json:"cgroup"`
}

// Actions of a Rule.
const (
	ActionAllow   = "allow"
	ActionDeny    = "deny"
	ActionApprove = "approve"
)

// Rule is one line of a policy.
type Rule struct {
	// Name is what errors, metrics and records call the rule: a DNS label, unique within the policy; "default" and "error"
	// are taken.
	Name string `yaml:"name" json:"name"`
	// When is a CEL expression that yields a bool (policy.md lists its fields). Default: true, which is said by leaving it out.
	When string `yaml:"when,omitempty" json:"when,omitempty"`
	// Action is "allow", "deny" or "approve": the statement is held until a person decides.
	Action string `yaml:"action" json:"action"`
	// Message is shown to the client when the rule denies or holds. Default: a sentence that names the rule.
	Message string `yaml:"message,omitempty" json:"message,omitempty"`
	// Approval says who decides on what the rule holds. It is required with action "approve" and an error with another.
	Approval *Approval `yaml:"approval,omitempty" json:"approval,omitempty"`
}

// RecordOptions say how much of an operation its record holds.
type RecordOptions struct {
	// Text is "normalised" (literals replaced) or "full". Default: normalised.
	Text string `yaml:"text,omitempty" json:"text,omitempty"`
	// Parameters is "redacted" (number and sizes only) or "full". Default: redacted.
	Parameters string `yaml:"parameters,omitempty" json:"parameters,omitempty"`
}

// Values of RecordOptions.
const (
	RecordNormalised = "normalised"
	RecordFull       = "full"
	RecordRedacted   = "redacted"
)
