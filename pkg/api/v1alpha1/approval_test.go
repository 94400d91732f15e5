package v1alpha1

import (
	"fmt"
	"strings"
	"testing"
)

func TestApprovalValidation(t *testing.T) {
	const field = "spec.rules[0].approval"
	rule := func(a *Approval) func(*AccessPolicy) {
		return func(p *AccessPolicy) {
			p.Spec.Rules = []Rule{{Name: "a", Action: ActionApprove, Message: "ask the owners", Approval: a}}
			p.Default()
		}
	}
	many := make([]string, maxApprovers+1)
	for i := range many {
		many[i] = fmt.Sprintf("uid:%d", i)
	}
	for _, test := range []fieldTest[*AccessPolicy]{
		{name: "approvers are enough", change: rule(&Approval{Approvers: []string{"group:dba", "user:alice", "uid:1000"}})},
		{name: "everything may be said", change: rule(&Approval{Timeout: "24h", Window: "1s", Reason: "required", Approvers: []string{"user:a.b-c_d"}})},
		{name: "an approval is required", change: rule(nil), field: field, message: "is missing"},
		{name: "approvers are required", change: rule(&Approval{}), field: field + ".approvers", message: "at least one"},
		{name: "approvers are bounded", change: rule(&Approval{Approvers: many}), field: field + ".approvers", message: "at most 64"},
		{name: "an approver has a form", change: rule(&Approval{Approvers: []string{"dba"}}), field: field + ".approvers[0]", message: `found "dba"`},
		{name: "a user has a name", change: rule(&Approval{Approvers: []string{"user:"}}), field: field + ".approvers[0]"},
		{name: "a group's name is one word", change: rule(&Approval{Approvers: []string{"group:a b"}}), field: field + ".approvers[0]"},
		{name: "a uid is a number", change: rule(&Approval{Approvers: []string{"uid:alice"}}), field: field + ".approvers[0]"},
		{name: "a uid has one spelling", change: rule(&Approval{Approvers: []string{"uid:007"}}), field: field + ".approvers[0]"},
		{name: "a uid is not minus one", change: rule(&Approval{Approvers: []string{"uid:4294967295"}}), field: field + ".approvers[0]"},
		{name: "an approver is named once", change: rule(&Approval{Approvers: []string{"uid:1", "uid:1"}}), field: field + ".approvers[1]", message: "same as approvers[0]"},
		{name: "a timeout is a duration", change: rule(&Approval{Timeout: "soon", Approvers: []string{"uid:1"}}), field: field + ".timeout", message: "from 1s to 24h"},
		{name: "a timeout is not less than a second", change: rule(&Approval{Timeout: "999ms", Approvers: []string{"uid:1"}}), field: field + ".timeout"},
		{name: "a window is not more than a day", change: rule(&Approval{Window: "25h", Approvers: []string{"uid:1"}}), field: field + ".window"},
		{name: "a reason is optional or required", change: rule(&Approval{Reason: "yes", Approvers: []string{"uid:1"}}), field: field + ".reason"},
		{name: "an approval needs the action", change: func(p *AccessPolicy) {
			p.Spec.Rules = []Rule{{Name: "a", Action: ActionAllow, Approval: &Approval{Timeout: "1m", Reason: "optional", Approvers: []string{"uid:1"}}}}
		}, field: field, message: "expected that action"},
	} {
		t.Run(test.name, func(t *testing.T) { test.check(t, accessPolicy(test.change).Validate()) })
	}
}

func TestWebhookValidation(t *testing.T) {
	const field = "spec.approvals.webhook"
	hook := func(url string) func(*AccessPolicy) {
		return func(p *AccessPolicy) {
			p.Spec.Approvals = &Approvals{Webhook: &Webhook{URL: url, Secret: SecretSource{File: "/run/secrets/hook"}}}
		}
	}
	for _, test := range []fieldTest[*AccessPolicy]{
		{name: "https", change: hook("https://chat.example/services/s3cret")},
		{name: "http to this host", change: hook("http://127.0.0.1:8080/hook")},
		{name: "http to this host by name", change: hook("http://localhost/hook")},
		{name: "a URL is required", change: hook(""), field: field + ".url", message: "is missing"},
		{name: "http to another host", change: hook("http://chat.example/s3cret"), field: field + ".url", message: "not https"},
		{name: "another scheme", change: hook("ftp://chat.example/s3cret"), field: field + ".url", message: "not https"},
		{name: "a password in the URL", change: hook("https://a:s3cret@chat.example/"), field: field + ".url", message: "has a user"},
		{name: "no host", change: hook("https:///s3cret"), field: field + ".url", message: "no URL with a host"},
		{name: "a fragment", change: hook("https://chat.example/#s3cret"), field: field + ".url", message: "fragment"},
		{name: "an empty section", change: func(p *AccessPolicy) { p.Spec.Approvals = &Approvals{} }, field: "spec.approvals", message: "expected a webhook"},
		{name: "a secret is required", change: func(p *AccessPolicy) {
			p.Spec.Approvals = &Approvals{Webhook: &Webhook{URL: "https://chat.example"}}
		}, field: field + ".secret", message: "is missing"},
		{name: "a CA is a file", change: func(p *AccessPolicy) {
			p.Spec.Approvals = &Approvals{Webhook: &Webhook{URL: "https://chat.example", Secret: SecretSource{Env: "HOOK"}, CA: &FileSource{File: "ca"}}}
		}, field: field + ".ca.file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := accessPolicy(test.change).Validate()
			test.check(t, got)
			for _, problem := range got {
				if strings.Contains(problem.Error(), "s3cret") {
					t.Errorf("the secret is quoted: %s", problem)
				}
			}
		})
	}
}
