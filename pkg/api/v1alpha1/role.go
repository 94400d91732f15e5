package v1alpha1

import (
	"fmt"
	"strings"
	"time"
)

// Scopes of a PostgresRole.
const (
	ScopeSession  = "session"
	ScopeWorkload = "workload"
)

// PostgresRole makes login roles just in time, by an administrator's credential that the proxy alone holds, and drops them after use.
type PostgresRole struct {
	// Address is host:port of the server that roles are made on: the primary, where the target is a replica.
	Address string `yaml:"address" json:"address"`
	// TLS is how that leg is secured. Default: verify-full with the system's roots.
	TLS *UpstreamTLS `yaml:"tls,omitempty" json:"tls,omitempty"`
	// Admin is the administrator: a role with CREATEROLE that may grant what roles get, or a superuser.
	Admin StaticCredential `yaml:"admin" json:"admin"`
	// Scope is "session" (a role for each session) or "workload" (one for all sessions of a workload in a database). Default: session.
	Scope string `yaml:"scope,omitempty" json:"scope,omitempty"`
	// TTL is how long a role lives at most, 1m to 24h; a session ends with its role. Default: 1h.
	TTL string `yaml:"ttl,omitempty" json:"ttl,omitempty"`
	// ConnectionLimit is how many connections a role may have at once, 1 to 10000. Default: 1 for scope session, 100 for workload.
	ConnectionLimit int `yaml:"connectionLimit,omitempty" json:"connectionLimit,omitempty"`
	// Owner is the role that gets what a dropped one owned. Default: the administrator.
	Owner string `yaml:"owner,omitempty" json:"owner,omitempty"`
	// Role is what each role may do; the role of an AccessPolicy adds to it.
	Role RoleTemplate `yaml:"role,omitempty" json:"role,omitempty"`
}

// RoleTemplate is what a just-in-time role may do, beside what everybody (PUBLIC) may.
type RoleTemplate struct {
	// MemberOf are roles whose privileges it inherits.
	MemberOf []string `yaml:"memberOf,omitempty" json:"memberOf,omitempty"`
	// Grants are privileges of its own. Those on objects bring USAGE on their schemas.
	Grants []RoleGrant `yaml:"grants,omitempty" json:"grants,omitempty"`
}

// RoleGrant is one GRANT: exactly one kind of object.
type RoleGrant struct {
	// Privileges are SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER, USAGE, CREATE, EXECUTE or ALL.
	Privileges []string `yaml:"privileges" json:"privileges"`
	// Tables are tables and views, "schema.table", or "schema.*" for all that there are when the role is made.
	Tables []string `yaml:"tables,omitempty" json:"tables,omitempty"`
	// Sequences are named like tables.
	Sequences []string `yaml:"sequences,omitempty" json:"sequences,omitempty"`
	// Functions are named like tables: a name that several functions have is refused.
	Functions []string `yaml:"functions,omitempty" json:"functions,omitempty"`
	// Schemas are names of schemas.
	Schemas []string `yaml:"schemas,omitempty" json:"schemas,omitempty"`
}

// Default fills in what the document leaves out.
func (r *PostgresRole) Default() {
	if r.TLS == nil {
		r.TLS = &UpstreamTLS{}
	}
	if r.TLS.Mode == "" {
		r.TLS.Mode = TLSVerifyFull
	}
	if r.Scope == "" {
		r.Scope = ScopeSession
	}
	if r.TTL == "" {
		r.TTL = "1h"
	}
	if r.ConnectionLimit == 0 {
		r.ConnectionLimit = 1
		if r.Scope == ScopeWorkload {
			r.ConnectionLimit = 100
		}
	}
	if r.Owner == "" {
		r.Owner = r.Admin.Username
	}
}

func (r *PostgresRole) validate(p *problems, field string) {
	p.check(field+".address", checkHostPort(r.Address))
	r.TLS.validate(p, field+".tls")
	p.check(field+".admin.username", checkUsername(r.Admin.Username))
	r.Admin.Password.validate(p, field+".admin.password")
	p.check(field+".scope", checkOneOf(r.Scope, ScopeSession, ScopeWorkload))
	if d, err := time.ParseDuration(r.TTL); err != nil || d < time.Minute || d > 24*time.Hour {
		p.add(field+".ttl", "found %q; expected a duration from 1m to 24h", r.TTL)
	}
	if r.ConnectionLimit < 1 || r.ConnectionLimit > 10_000 {
		p.add(field+".connectionLimit", "found %d; expected 1 to 10000", r.ConnectionLimit)
	}
	p.check(field+".owner", checkUsername(r.Owner))
	r.Role.validate(p, field+".role")
}

func (t *RoleTemplate) validate(p *problems, field string) {
	for i, role := range t.MemberOf {
		p.check(fmt.Sprintf("%s.memberOf[%d]", field, i), checkUsername(role))
	}
	for i := range t.Grants {
		t.Grants[i].validate(p, fmt.Sprintf("%s.grants[%d]", field, i))
	}
}

// privileges are those that each kind of object has; "GRANT" in the PostgreSQL manual.
var privileges = map[string][]string{
	"tables":    {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "ALL"},
	"sequences": {"USAGE", "SELECT", "UPDATE", "ALL"},
	"functions": {"EXECUTE", "ALL"},
	"schemas":   {"USAGE", "CREATE", "ALL"},
}

func (g *RoleGrant) validate(p *problems, field string) {
	kind, names := g.Objects()
	if kind == "" {
		p.add(field, "has not exactly one of tables, sequences, functions and schemas; expected one of them, and not empty")
		return
	}
	if len(g.Privileges) == 0 {
		p.add(field+".privileges", "is empty; expected at least one privilege")
	}
	for i, privilege := range g.Privileges {
		p.check(fmt.Sprintf("%s.privileges[%d]", field, i), checkOneOf(privilege, privileges[kind]...))
	}
	for i, name := range names {
		at := fmt.Sprintf("%s.%s[%d]", field, kind, i)
		if message := checkText(name, 255); message != "" {
			p.add(at, "%s", message)
		} else if schema, object, found := strings.Cut(name, "."); schema == "" || kind == "schemas" && found || kind != "schemas" && object == "" {
			if kind == "schemas" {
				p.add(at, "found %q; expected the name of a schema", name)
			} else {
				p.add(at, "found %q; expected schema.name, or schema.*", name)
			}
		}
	}
}

// Objects are the objects of the grant and their kind, "tables" for example; the kind is "" unless there is exactly one.
func (g *RoleGrant) Objects() (kind string, names []string) {
	found := 0
	for _, of := range []struct {
		kind  string
		names []string
	}{{"tables", g.Tables}, {"sequences", g.Sequences}, {"functions", g.Functions}, {"schemas", g.Schemas}} {
		if len(of.names) > 0 {
			kind, names = of.kind, of.names
			found++
		}
	}
	if found != 1 {
		return "", nil
	}
	return kind, names
}
