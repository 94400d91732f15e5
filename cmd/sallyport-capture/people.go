package main

import (
	"net"
	"slices"

	"github.com/sallyport-dev/sallyport/pkg/capture"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// Enrolled implements people.Backend.
func (a *agent) Enrolled(name string) bool {
	return slices.ContainsFunc(a.capture.Workloads(), func(e capture.Enrolled) bool { return cgroup.Contains(e.Cgroup, name) })
}

// Person implements people.Backend.
func (a *agent) Person(who handoff.Person, conn *net.UnixConn) error {
	return a.server.Person(who, conn)
}
