package handoff

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMalformedMessagesAreErrors(t *testing.T) {
	for _, test := range []struct {
		name, data  string
		descriptors int
	}{
		{"nothing", "", 0},
		{"no JSON", "{", 0},
		{"another type", "[]", 0},
		{"no kind", "{}", 0},
		{"an unknown kind", `{"kind":"format"}`, 0},
		{"enroll without a workload", `{"kind":"enroll"}`, 1},
		{"enroll without a listener", `{"kind":"enroll","workload":{}}`, 0},
		{"documents without content", `{"kind":"documents"}`, 0},
		{"documents with two contents", `{"kind":"documents"}`, 2},
		{"status without a body", `{"kind":"status"}`, 0},
		{"event without a body", `{"kind":"event"}`, 0},
		{"read without a path", `{"kind":"read"}`, 0},
		{"read with a descriptor", `{"kind":"read","path":"/x"}`, 1},
		{"file with neither content nor error", `{"kind":"file"}`, 0},
		{"a negative number", `{"kind":"withdraw","id":-1}`, 0},
	} {
		if m, err := decode([]byte(test.data), test.descriptors); !errors.Is(err, errMessage) {
			t.Errorf("%s: %+v, %v: want %v", test.name, m, err, errMessage)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []message{
		{Kind: kindHello, Version: version},
		{Kind: kindDocuments},
		{Kind: kindEnroll, Workload: &Workload{ID: 1, Cgroup: "/a"}},
		{Kind: kindStatus, Status: &CaptureStatus{Counters: map[string]uint64{"captured": 1}}},
		{Kind: kindRead, Path: "/x", Request: 1},
		{Kind: kindFile, Error: "no"},
	} {
		data, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, 1)
		f.Add(data, 0)
	}
	f.Fuzz(func(t *testing.T, data []byte, descriptors int) {
		m, err := decode(data, descriptors)
		if err != nil {
			if !errors.Is(err, errMessage) {
				t.Errorf("%v is no %v", err, errMessage)
			}
			return
		}
		// What dispatch and read take for granted.
		if m.Kind == kindEnroll && (m.Workload == nil || descriptors < 1) || m.Kind == kindDocuments && descriptors != 1 ||
			m.Kind == kindStatus && m.Status == nil || m.Kind == kindEvent && m.Event == nil || m.Kind == kindPerson && (m.Person == nil || descriptors != 1) || m.Kind == kindFile && m.Error == "" && descriptors != 1 {
			t.Errorf("%+v with %d descriptors was taken", m, descriptors)
		}
	})
}

// pair is two ends of a socket of messages.
func pair(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		ends[i] = conn.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestDescriptorsOfBadMessagesAreClosed(t *testing.T) {
	a, b := pair(t)
	file, err := sealed([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd := int(file.Fd())
	before := openDescriptors(t)
	for _, test := range []struct {
		name   string
		data   string
		rights []int
	}{
		{"more than a message may bring", `{"kind":"enroll","workload":{}}`, []int{fd, fd, fd, fd, fd, fd}},
		{"a kind that brings none", `{"kind":"hello"}`, []int{fd}},
		{"no JSON", "x", []int{fd, fd}},
		{"longer than the buffer", `{"kind":"documents","path":"` + string(make([]byte, 600)) + `"}`, []int{fd}},
	} {
		if _, _, err := a.WriteMsgUnix([]byte(test.data), unix.UnixRights(test.rights...), nil); err != nil {
			t.Fatal(err)
		}
		if m, _, err := receive(b, make([]byte, 512)); !errors.Is(err, errMessage) {
			t.Errorf("%s: %+v, %v", test.name, m, err)
		}
		if now := openDescriptors(t); now != before {
			t.Errorf("%s: %d descriptors were open, %d are", test.name, before, now)
		}
	}
}

func TestContentMustBeASealedMemfd(t *testing.T) {
	regular, err := os.Create(t.TempDir() + "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	fd, err := unix.MemfdCreate("open", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	open := os.NewFile(uintptr(fd), "open")
	defer open.Close()
	large, err := sealed(make([]byte, 11))
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	for name, file := range map[string]*os.File{"a regular file": regular, "a memfd that is not sealed": open, "more than the limit": large} {
		if _, err := unsealed(file, 10); !errors.Is(err, errMessage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := large.Write([]byte("x")); err == nil {
		t.Error("a sealed memfd was written to")
	}
}

func TestConnectionThatWasNotCapturedHasNoOrigin(t *testing.T) {
	l := listener(t)
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := (Workload{}).OriginOf(conn); !errors.Is(err, ErrNoOrigin) {
		t.Errorf("got %v: want %v", err, ErrNoOrigin)
	}
}
