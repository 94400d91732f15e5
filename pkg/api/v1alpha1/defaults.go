package v1alpha1

import (
	"net"
	"net/netip"
	"strings"
)

// Default fills in what the document leaves out.
func (t *Target) Default() {
	spec := &t.Spec
	if spec.ClientTLS == "" {
		spec.ClientTLS = ClientTLSAuto
	}
	if spec.Upstream.TLS == nil {
		spec.Upstream.TLS = &UpstreamTLS{}
	}
	if pool := spec.Upstream.Pool; pool != nil && pool.IdleTimeout == "" {
		pool.IdleTimeout = "3s"
	}
	tls := spec.Upstream.TLS
	if tls.Mode == "" {
		tls.Mode = TLSVerifyFull
	}
	if tls.ServerName == "" && tls.Mode == TLSVerifyFull {
		tls.ServerName = spec.serverName()
	}
}

// serverName is the host of the upstream address, else the first host of the endpoints, else "". What is no host is passed
// over: Validate complains of it where it is written.
func (s *TargetSpec) serverName() string {
	if host, _, err := net.SplitHostPort(s.Upstream.Address); err == nil && checkHost(host) == "" {
		return host
	}
	for _, endpoint := range s.Endpoints {
		if endpoint.Host != "" && checkHost(endpoint.Host) == "" {
			return endpoint.Host
		}
	}
	return ""
}

// Hosts are the hosts of the endpoints in their order: the names and addresses that a client's TLS may ask of the proxy.
func (t *Target) Hosts() []string {
	var hosts []string
	for _, endpoint := range t.Spec.Endpoints {
		if endpoint.Host != "" {
			hosts = append(hosts, endpoint.Host)
		}
	}
	return hosts
}

// Prefix is the range of addresses that the endpoint names: its CIDR, or the one address that Host is written as.
// It is false for a DNS name.
func (e Endpoint) Prefix() (netip.Prefix, bool) {
	if e.CIDR != "" {
		prefix, err := netip.ParsePrefix(e.CIDR)
		return prefix, err == nil
	}
	addr, err := netip.ParseAddr(e.Host)
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, addr.BitLen()), true
}

// Default fills in what the document leaves out.
func (c *CredentialSource) Default() {
	if role := c.Spec.PostgresRole; role != nil {
		role.Default()
	}
}

// Default fills in what the document leaves out.
func (p *AccessPolicy) Default() {
	if p.Spec.Record.Text == "" {
		p.Spec.Record.Text = RecordNormalised
	}
	if p.Spec.Record.Parameters == "" {
		p.Spec.Record.Parameters = RecordRedacted
	}
	for i := range p.Spec.Rules {
		p.Spec.Rules[i].Approval.setDefaults()
	}
	p.Spec.defaultMasks()
}

// Unconditional is true for a rule that matches every operation: one without an expression, or with the expression true.
func (r Rule) Unconditional() bool {
	when := strings.TrimSpace(r.When)
	return when == "" || when == "true"
}
