package people

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// maxGroupBytes is how many bytes of names of groups are passed on; who is in more has the rights of these.
const maxGroupBytes = 32 << 10

// identify asks the kernel which process has connected, and which cgroup it is in. The process must live still, so that its number is
// not another's by now.
func identify(conn *net.UnixConn) (who handoff.Person, err error) {
	if who.UID, who.PID, err = handoff.Peer(conn); err != nil {
		return who, err
	}
	if who.PID == 0 {
		return who, errors.New("its process is in another pid namespace, or has ended")
	}
	process, err := processOf(conn, who.PID)
	if err != nil {
		return who, err
	}
	defer unix.Close(process)
	hierarchy := cgroup.Hierarchy{} // where it is mounted does not matter
	if who.Cgroup, err = hierarchy.OfProcess(strconv.FormatUint(uint64(who.PID), 10)); err != nil {
		return who, err
	}
	if err := lives(process); err != nil {
		return who, err
	}
	return who, nil
}

// processOf is a pidfd of the process that connected. SO_PEERPIDFD (Linux 6.5) is of that very process. Before, there is only its
// number, which another process could have by now if it ended at once and all numbers went round in the moment since it connected.
func processOf(conn *net.UnixConn, pid uint32) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("peer's process: %w", err)
	}
	var failure error
	if err := raw.Control(func(socket uintptr) {
		fd, failure = unix.GetsockoptInt(int(socket), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	}); err != nil {
		return -1, fmt.Errorf("peer's process: %w", err)
	}
	if errors.Is(failure, unix.ENOPROTOOPT) {
		fd, failure = unix.PidfdOpen(int(pid), 0)
	}
	if failure != nil {
		return -1, fmt.Errorf("peer's process %d: %w", pid, failure)
	}
	unix.CloseOnExec(fd)
	return fd, nil
}

// lives is nil while the process of a pidfd has not ended: it becomes readable then; pidfd_open(2).
func lives(process int) error {
	state := []unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(state, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("peer's process: %w", err)
		case n > 0:
			return errors.New("the process that connected has ended")
		default:
			return nil
		}
	}
}

// name adds what the host calls the user and their groups. What it does not know is left out: rules that name it do not fit then.
func name(who *handoff.Person) {
	account, err := user.LookupId(strconv.FormatUint(uint64(who.UID), 10))
	if err != nil {
		return
	}
	who.User = account.Username
	ids, err := account.GroupIds()
	if err != nil {
		return
	}
	bytes := 0
	for _, id := range ids {
		group, err := user.LookupGroupId(id)
		if err != nil {
			continue
		}
		if bytes += len(group.Name); bytes > maxGroupBytes {
			return
		}
		who.Groups = append(who.Groups, group.Name)
	}
}
