package capture

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/sallyport-dev/sallyport/bpf"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

func TestSharedStructsHaveNoHiddenPadding(t *testing.T) {
	for _, test := range []struct {
		name   string
		value  any
		memory uintptr
		want   int
	}{
		{"origin", bpf.CaptureOrigin{}, unsafe.Sizeof(bpf.CaptureOrigin{}), 80},
		{"dial", bpf.CaptureDial{}, unsafe.Sizeof(bpf.CaptureDial{}), 88},
		{"workload", bpf.CaptureWorkload{}, unsafe.Sizeof(bpf.CaptureWorkload{}), 24},
		{"target4", bpf.CaptureTarget4{}, unsafe.Sizeof(bpf.CaptureTarget4{}), 12},
		{"target6", bpf.CaptureTarget6{}, unsafe.Sizeof(bpf.CaptureTarget6{}), 24},
		{"usage", bpf.CaptureUsage{}, unsafe.Sizeof(bpf.CaptureUsage{}), 32},
		{"listener_port", bpf.CaptureListenerPort{}, unsafe.Sizeof(bpf.CaptureListenerPort{}), 16},
		{"event", bpf.CaptureEvent{}, unsafe.Sizeof(bpf.CaptureEvent{}), 88},
		{"slot", bpf.CaptureSlot{}, unsafe.Sizeof(bpf.CaptureSlot{}), 104},
		{"port_set", bpf.CapturePortSet{}, unsafe.Sizeof(bpf.CapturePortSet{}), 8192},
		{"flow", bpf.CaptureFlow{}, unsafe.Sizeof(bpf.CaptureFlow{}), 48},
	} {
		if int(test.memory) != test.want || binary.Size(test.value) != test.want {
			t.Errorf("%s: %d bytes in memory, %d without padding: want %d", test.name, test.memory, binary.Size(test.value), test.want)
		}
	}
}

func TestProxyReadsTheOriginThatTheProgramsWrite(t *testing.T) {
	address := netip.MustParseAddr("::ffff:192.0.2.10").As16()
	kernel := bpf.CaptureOrigin{
		Port: 5432, Pid: 1, Uid: 2, Pooled: 3, WorkloadId: 4, Generation: 5, CgroupId: 6, NetnsCookie: 7,
		Comm: [16]int8{'p', 's', 'q', 'l'},
	}
	for i := range kernel.Addr {
		kernel.Addr[i] = binary.NativeEndian.Uint32(address[4*i:])
	}
	var value bytes.Buffer
	if err := binary.Write(&value, binary.NativeEndian, kernel); err != nil {
		t.Fatal(err)
	}
	got, err := handoff.DecodeOrigin(value.Bytes())
	want := handoff.Origin{
		Destination: netip.MustParseAddrPort("192.0.2.10:5432"),
		PID:         1, UID: 2, WorkloadID: 4, Generation: 5, CgroupID: 6, NetnsCookie: 7, Comm: "psql",
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v: want %+v", got, err, want)
	}
	if _, err := handoff.DecodeOrigin(value.Bytes()[1:]); err == nil {
		t.Error("a short value was read")
	}
}

func TestEveryReasonHasAName(t *testing.T) {
	if len(reasons) != int(bpf.CaptureReasonREASON_MAX) {
		t.Errorf("%d of %d reasons have a name", len(reasons), bpf.CaptureReasonREASON_MAX)
	}
}

func TestAsManyWorkloadsAsAreSaid(t *testing.T) {
	spec, err := bpf.LoadCapture()
	if err != nil {
		t.Fatal(err)
	}
	if got := spec.Maps[bpf.CaptureMapWorkloads].MaxEntries; got != MaxWorkloads {
		t.Errorf("the map holds %d", got)
	}
}
