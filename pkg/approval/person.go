package approval

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Person is who asks to see or to decide, as the kernel and the host know them: the process at the other end of a Unix socket.
type Person struct {
	UID uint32
	// User is the host's name for the uid; "" when it has none.
	User string
	// Groups are the names of the user's groups.
	Groups []string
	// PID and Cgroup are the process's.
	PID    uint32
	Cgroup string
}

// by is the person as a decision names them.
func (p Person) by() *By { return &By{UID: p.UID, User: p.User} }

// isNamed is true when one of the approvers is this person, or a group of theirs.
func (p Person) isNamed(approvers []string) bool {
	return slices.ContainsFunc(approvers, func(approver string) bool {
		kind, name, _ := strings.Cut(approver, ":")
		switch kind {
		case "uid":
			return name == strconv.FormatUint(uint64(p.UID), 10)
		case "user":
			return p.User != "" && name == p.User
		case "group":
			return slices.Contains(p.Groups, name)
		}
		return false
	})
}

// asked is true when the person is one with whoever asked: the same user, or a process of the same workload.
func (p Person) asked(w Workload) bool { return p.UID == w.UID || p.inside(w) }

// inside is true for a process of the workload. One whose cgroup is not known counts.
func (p Person) inside(w Workload) bool {
	return p.Cgroup == "" || p.Cgroup == w.Cgroup || strings.HasPrefix(p.Cgroup, w.Cgroup+"/")
}

// MaySee is true for those who may decide on the request, and for root.
func (p Person) MaySee(r *Request) bool {
	return !p.inside(r.Workload) && (p.UID == 0 || p.isNamed(r.Approvers))
}

// MayDecide is nil for those whom the rule names, unless they asked. Root is no exception. The error wraps ErrForbidden.
func (p Person) MayDecide(r *Request) error {
	switch {
	case !p.isNamed(r.Approvers):
		return fmt.Errorf("%w: %s is none of the approvers %s", ErrForbidden, p.by(), strings.Join(r.Approvers, ", "))
	case p.asked(r.Workload):
		return fmt.Errorf("%w: who asks can not decide, and %s runs the workload that asked", ErrForbidden, p.by())
	}
	return nil
}
