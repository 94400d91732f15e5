package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sallyport-dev/sallyport"

// A listed is what go list says of a package. Tests' imports are not among them: a test may use what it needs.
type listed struct {
	ImportPath string
	Imports    []string // direct
	Deps       []string // direct and indirect
}

// A ban says which packages may not import which. Patterns are paths below the module, or whole paths for other modules;
// "a/..." is a and all below it.
type ban struct {
	why    string
	from   []string
	except []string // of from
	to     []string
	allow  []string // of to
	// direct looks at the package's own imports only, for what its dependencies may well need.
	direct bool
}

// ofProtocols are the packages that hold one protocol each.
var ofProtocols = []string{"postgres", "mysql", "redis", "mongodb", "ssh", "http"}

func bans() []ban {
	list := []ban{
		{
			why:  "only capture touches BPF, so that there is one place to look for what the kernel is told",
			from: []string{"..."}, except: []string{"bpf", "pkg/capture"},
			to: []string{"github.com/cilium/ebpf/...", "bpf"}, direct: true,
		},
		{
			why:  "only one package speaks nftables",
			from: []string{"..."}, except: []string{"pkg/capture/nft"},
			to: []string{"github.com/google/nftables/...", "github.com/mdlayher/netlink/..."}, direct: true,
		},
		{
			why:  "what parses hostile bytes holds no kernel power: nothing in the proxy reaches capture or BPF",
			from: []string{"pkg/proxy/...", "cmd/sallyport-proxy"},
			to:   []string{"github.com/cilium/ebpf/...", "bpf", "pkg/capture/..."},
		},
		{
			why:  "the command for people asks capture over its socket; it does not load programs itself",
			from: []string{"cmd/sallyport"},
			to:   []string{"github.com/cilium/ebpf/...", "bpf", "pkg/proxy/..."},
		},
		{
			why:  "what holds kernel power parses no protocol",
			from: []string{"pkg/capture/...", "pkg/workload/...", "pkg/handoff/...", "cmd/sallyport-capture"},
			to:   []string{"pkg/proxy/...", "github.com/jackc/pgx/..."},
		},
		{
			why:  "what holds kernel power answers no approver: it says who they are",
			from: []string{"pkg/capture/...", "pkg/handoff", "cmd/sallyport-capture"},
			to:   []string{"pkg/approval/..."},
		},
		{
			why:  "capture does not know what policies say, only what is to be captured",
			from: []string{"pkg/capture", "pkg/workload/...", "pkg/handoff"},
			to:   []string{"pkg/policy", "pkg/sql", "pkg/record", "pkg/credential/..."},
		},
		{
			why:  "documents are the bottom of the house",
			from: []string{"pkg/api/..."},
			to:   []string{"..."}, allow: []string{"pkg/api/..."},
		},
		{
			why:  "decisions are values, computed without I/O, so that they can be tabled in tests and can not block",
			from: []string{"pkg/mask", "pkg/policy", "pkg/sql/..."},
			to:   []string{"net", "net/http/...", "os/...", "io/fs", "syscall", "golang.org/x/sys/..."}, direct: true,
		},
		{
			why: "the rooms below the proxy and capture do not know who uses them",
			from: []string{"pkg/account", "pkg/api/...", "pkg/approval/...", "pkg/config", "pkg/credential/...", "pkg/handoff", "pkg/localhttp", "pkg/mask", "pkg/pki", "pkg/policy", "pkg/record",
				"pkg/sql/...", "pkg/workload/..."},
			to: []string{"pkg/proxy/...", "pkg/capture/...", "bpf"},
		},
		{
			why:  "help for tests is not part of what ships",
			from: []string{"cmd/...", "pkg/...", "bpf"},
			to:   []string{"test/...", "testing"},
		},
	}
	for _, protocol := range ofProtocols {
		var others []string
		for _, other := range ofProtocols {
			if other != protocol {
				others = append(others, "pkg/proxy/"+other+"/...")
			}
		}
		list = append(list, ban{
			why:  "a protocol knows no other protocol: " + protocol,
			from: []string{"pkg/proxy/" + protocol + "/..."},
			to:   others,
		})
	}
	return list
}

func TestImportsPointDownTheHouse(t *testing.T) {
	packages := listPackages(t)
	for _, b := range bans() {
		t.Run(b.why, func(t *testing.T) {
			for _, p := range packages {
				if !matches(p.ImportPath, b.from) || matches(p.ImportPath, b.except) {
					continue
				}
				imports := p.Deps
				if b.direct {
					imports = p.Imports
				}
				for _, imported := range imports {
					if matches(imported, b.to) && !matches(imported, b.allow) {
						t.Errorf("%s imports %s", p.ImportPath, imported)
					}
				}
			}
		})
	}
}

func TestPatternsMatchWholeElements(t *testing.T) {
	tests := []struct {
		path, pattern string
		want          bool
	}{
		{module + "/pkg/sql", "pkg/sql", true},
		{module + "/pkg/sqlx", "pkg/sql", false},
		{module + "/pkg/sql/deep", "pkg/sql", false},
		{module + "/pkg/sql/deep", "pkg/sql/...", true},
		{module + "/pkg/sqlx", "pkg/sql/...", false},
		{module + "/bpf", "...", true},
		{"fmt", "...", false},
		{"net", "net", true},
		{"net/netip", "net", false},
		{"github.com/cilium/ebpf/link", "github.com/cilium/ebpf/...", true},
	}
	for _, tt := range tests {
		if got := matches(tt.path, []string{tt.pattern}); got != tt.want {
			t.Errorf("matches(%q, %q) = %v", tt.path, tt.pattern, got)
		}
	}
}

// matches is whether a package's path is one of the patterns.
func matches(path string, patterns []string) bool {
	local, ours := strings.CutPrefix(path, module+"/")
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if pattern == "..." {
			return ours
		}
		if below, ok := strings.CutSuffix(pattern, "/..."); ok {
			return path == below || strings.HasPrefix(path, below+"/") ||
				ours && (local == below || strings.HasPrefix(local, below+"/"))
		}
		return path == pattern || ours && local == pattern
	})
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	command := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", module+"/...")
	out, err := command.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var packages []listed
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		t.Fatal("go list found no package")
	}
	return packages
}
