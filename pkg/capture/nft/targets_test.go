package nft

import (
	"net/netip"
	"strings"
	"testing"
)

func TestTargetsDoNotOverlap(t *testing.T) {
	for _, test := range []struct{ name, endpoints, want string }{
		{"none", "", ""},
		{"twice the same", "10.0.0.1/32:1 10.0.0.1/32:1", "10.0.0.1/32:1"},
		{"an address in a range", "10.0.0.7/32:1 10.0.0.0/24:1", "10.0.0.0/24:1"},
		{"ranges in ranges", "10.0.0.0/8:1 10.1.0.0/16:1 10.1.1.0/24:1 10.2.0.0/16:1 11.0.0.1/32:1", "10.0.0.0/8:1 11.0.0.1/32:1"},
		{"the same first address", "10.0.0.0/24:1 10.0.0.0/32:1 10.0.0.0/16:1", "10.0.0.0/16:1"},
		{"another port", "10.0.0.0/24:1 10.0.0.7/32:2", "10.0.0.0/24:1 10.0.0.7/32:2"},
		{"both versions of IP", "0.0.0.0/0:1 ::/0:1", "0.0.0.0/0:1 ::/0:1"},
		{"a v4-mapped range", "::ffff:10.0.0.0/120:1 10.0.0.7/32:1", "10.0.0.0/24:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var list []string
			for text := range strings.FieldsSeq(test.endpoints) {
				list = append(list, "["+text[:strings.LastIndexByte(text, ':')]+"]"+text[strings.LastIndexByte(text, ':'):])
			}
			made, err := newTargets(endpoints(list...))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, one := range made {
				at := netip.AddrPortFrom(one.prefix.Addr(), one.port)
				if at == canary4 || at == canary6 {
					continue
				}
				got = append(got, one.prefix.String()+":"+at.String()[strings.LastIndexByte(at.String(), ':')+1:])
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %s, want %s", strings.Join(got, " "), test.want)
			}
		})
	}
}

func TestKernelTakesRangesThatOverlapAndChange(t *testing.T) {
	n := newNode(t)
	shop := n.mkdir("/shop")
	c := n.open()
	n.enrolled(c, shop)
	db := n.database("127.9.8.7:5432")
	for _, step := range []struct {
		targets string
		want    string
	}{
		{"[127.9.8.0/24]:5432 [127.9.8.7/32]:5432 [127.9.0.0/16]:5433 [fd00::/8]:5432", "proxy for " + db},
		{"[127.9.8.6/31]:5432", "proxy for " + db},
		{"[0.0.0.0/0]:5432 [::/0]:5432", "proxy for " + db},
		{"[127.9.8.8/29]:5432 [127.9.8.7/32]:5433", "database"},
		{"[127.9.8.7/32]:5432", "proxy for " + db},
		{"", "database"},
	} {
		if err := c.SetTargets(endpoints(strings.Fields(step.targets)...)); err != nil {
			t.Fatalf("%s: %v", step.targets, err)
		}
		if got := n.dial(shop, "tcp", db); got != step.want {
			t.Errorf("%s: %q, want %q", step.targets, got, step.want)
		}
		if err := c.Prove(t.Context()); err != nil {
			t.Errorf("%s: %v", step.targets, err)
		}
	}
}
