package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/approval/api"
	"github.com/sallyport-dev/sallyport/pkg/approval/webhook"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/policy"
)

// approvals are the proxy's part in what people decide.
type approvals struct {
	desk   *approval.Desk
	mu     sync.Mutex // held while the pending requests are counted for the metrics
	people *api.Server
	hooks  *webhook.Sender
}

// OpenApprovals opens the directory of what is held and takes people from then on, until close is called, which withdraws what is
// pending. It comes before the first session and before the first Person.
func (p *Proxy) OpenApprovals(dir string) (closeAll func() error, err error) {
	a := &p.approvals
	a.hooks = webhook.NewSender(p.Files, func(policy, result string) { p.Metrics.webhooks.WithLabelValues(policy, result).Inc() }, p.Log)
	if a.desk, err = approval.Open(approval.Options{Dir: dir, Changed: p.requestChanged}); err != nil {
		a.hooks.Close()
		return nil, err
	}
	a.people = api.NewServer(a.desk, p.Metrics.refusedPeople.Inc, p.Log)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- a.people.Serve(ctx) }()
	return sync.OnceValue(func() error {
		err := a.desk.Close()
		stop()
		if failure := <-served; err == nil {
			err = failure
		}
		a.hooks.Close() // last: it tells of what was withdrawn
		return err
	}), nil
}

// Person takes a connection of somebody who would see or decide what is held.
func (p *Proxy) Person(who handoff.Person, conn net.Conn) {
	// Not in the seam's way, should people queue.
	go p.approvals.people.Accept(approval.Person{UID: who.UID, User: who.User, Groups: who.Groups, PID: who.PID, Cgroup: who.Cgroup}, conn)
}

// requestChanged counts a request that was made or has ended, and tells the policy's webhook.
func (p *Proxy) requestChanged(r approval.Request) {
	if desk := p.approvals.desk; desk != nil { // it may be just opening
		p.approvals.mu.Lock()
		p.Metrics.waiting.Set(float64(desk.Waiting()))
		p.approvals.mu.Unlock()
	}
	if r.State != approval.Pending {
		p.Metrics.requests.WithLabelValues(r.Target, r.Policy, r.Rule, string(r.State)).Inc()
	}
	d := p.documents.Load()
	if d == nil {
		return
	}
	if spec := d.Policies[r.Policy].Spec.Approvals; spec != nil {
		p.approvals.hooks.Send(*spec.Webhook, r)
	}
}

// Holds is true when a rule may hold what this session asks for.
func (s *Session) Holds() bool { return s.grant.Holds() }

// Replaced is closed when the documents by which the session decides are not in force any more.
func (s *Session) Replaced() <-chan struct{} { return s.documents.replaced }

// An Operation is what a protocol says of an operation that is held.
type Operation struct {
	// Kind, Text, Executes and Parameters are shown to approvers: secrets are redacted, and Parameters is `"parameters":…` as it
	// is recorded, or nil.
	Kind, Text string
	Executes   []string
	// Recorded is the text as policy has it recorded: what stays when the request has ended.
	Recorded   string
	Parameters []byte
	// Binding is all of the operation, as it was sent: what the approval is bound to.
	Binding []string
}

// Question is the request that asks for an approval of an operation. Two operations have the same Hash only when they are the same
// in everything that the approver was asked about, and are asked for by the same user of the same workload.
func (s *Session) Question(a *policy.Approval, op Operation) approval.Request {
	r := approval.Request{
		Session:  s.ID,
		Workload: approval.Workload{Name: s.Workload.Name, Cgroup: s.Workload.Cgroup, PID: s.Origin.PID, UID: s.Origin.UID, Comm: s.Origin.Comm},
		Target:   s.Target.Metadata.Name, Database: s.startup.Database,
		Policy: a.Policy, Rule: a.Rule, Message: a.Message, Approvers: a.Approvers, NeedsReason: a.NeedsReason, Window: int64(a.Window.Seconds()),
		Kind: op.Kind, Text: strings.ToValidUTF8(op.Text, "\uFFFD"), Executes: op.Executes,
		Recorded: strings.ToValidUTF8(op.Recorded, "\uFFFD"),
	}
	if len(op.Parameters) > 0 {
		var members struct{ Parameters json.RawMessage }
		if json.Unmarshal(slices.Concat([]byte("{"), op.Parameters, []byte("}")), &members) == nil {
			r.Parameters = members.Parameters
		}
	}
	r.Hash = approval.Hash(slices.Concat([]string{
		s.Workload.Cgroup, strconv.FormatUint(uint64(s.Origin.UID), 10), r.Target, s.UpstreamAddress(), s.Target.Spec.Credential, r.Database,
		a.Policy, a.Rule, strconv.FormatBool(a.NeedsReason), a.Window.String(), strings.Join(a.Approvers, "\x00"), op.Kind,
	}, op.Binding)...)
	return r
}

// Ask makes the request, or finds an approval that is left. It writes to the disk, and may be called beside the session's other methods. Without
// a ticket the operation is to be denied.
func (s *Session) Ask(a *policy.Approval, r approval.Request) (t *approval.Ticket, err error) {
	if s.Origin.ProcessUnknown { // so nobody can be told from the requester, who can never approve
		err = errors.New("it is not known who asks: nftables capture the workload")
	} else {
		t, err = s.proxy.approvals.desk.Ask(r, a.Timeout)
	}
	if err != nil {
		s.proxy.Metrics.requests.WithLabelValues(r.Target, r.Policy, r.Rule, "refused").Inc()
	}
	return t, err
}

// approvalMetrics are those of what people decide.
type approvalMetrics struct {
	requests, webhooks *prometheus.CounterVec
	refusedPeople      prometheus.Counter
	waiting            prometheus.Gauge
}

func newApprovalMetrics(counter func(name, help string, labels ...string) *prometheus.CounterVec, gauge func(name, help string, labels ...string) *prometheus.GaugeVec) approvalMetrics {
	return approvalMetrics{
		requests: counter("approval_requests_total",
			"Requests for approval that have ended, by how: approved, denied, expired, withdrawn, or refused because there were too many or the disk was full.",
			"target", "policy", "rule", "outcome"),
		webhooks: counter("approval_webhooks_total", "Messages to webhooks, by result: sent, failed (it was tried several times) or dropped (too many waited).",
			"policy", "result"),
		refusedPeople: counter("approval_people_refused_total", "Requests of people to see or decide what they may not.").WithLabelValues(),
		waiting:       gauge("approval_requests_pending", "Requests for approval that wait for a decision.").WithLabelValues(),
	}
}
