package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

// masked is a policy with a mask for a column.
func masked(name, column, with string) v1alpha1.AccessPolicy {
	doc := document(name, allow("all", ""))
	doc.Spec.Masks = []v1alpha1.Mask{{Columns: []string{column}, With: with}}
	doc.Spec.Masking.HashKey = &v1alpha1.SecretSource{File: "/keys/" + name}
	doc.Default()
	return doc
}

func TestMasksOfAllPoliciesApplyTogether(t *testing.T) {
	g := mustGrant(t, masked("b", "*.ssn", "redact"), document("c", allow("all", "")), masked("a", "public.people.*", "null"))
	rules := g.Masks()
	if rules.Len() != 2 {
		t.Fatalf("%d masks", rules.Len())
	}
	for _, test := range []struct {
		schema, table, column string
		policy                string
	}{
		{"public", "people", "ssn", "a"}, {"Public", "People", "Name", "a"}, {"other", "people", "ssn", "b"}, {"other", "people", "name", ""},
	} {
		i, ok := rules.Column(test.schema, test.table, test.column)
		if ok != (test.policy != "") || ok && rules.Mask(i).Policy != test.policy {
			t.Errorf("%v: mask %d, %v", test, i, ok)
		}
	}
}

func TestGrantWithoutMasksHasNone(t *testing.T) {
	if rules := mustGrant(t, document("p", allow("all", ""))).Masks(); rules != nil {
		t.Errorf("got %v", rules)
	}
	if rules := (Grant{}).Masks(); rules != nil {
		t.Errorf("the zero grant has %v", rules)
	}
}

func TestSessionsOfOneSetShareTheirMasks(t *testing.T) {
	set, err := Compile([]v1alpha1.AccessPolicy{masked("a", "*.ssn", "redact"), document("b", allow("all", ""))})
	if err != nil {
		t.Fatal(err)
	}
	one, _ := set.Grant(Workload{Cgroup: "/sallyport/shop"}, "orders")
	other, _ := set.Grant(Workload{Cgroup: "/ci/job"}, "orders")
	if one.Masks() == nil || one.Masks() != other.Masks() {
		t.Errorf("got %p and %p", one.Masks(), other.Masks())
	}
}

func TestKeysAreReadForEachPolicy(t *testing.T) {
	set, err := Compile([]v1alpha1.AccessPolicy{masked("a", "*.ssn", "hash"), masked("b", "*.email", "hash"), document("c", allow("all", ""))})
	if err != nil {
		t.Fatal(err)
	}
	var read []string
	keyed, err := set.Keyed(func(from v1alpha1.SecretSource) ([]byte, error) {
		read = append(read, from.File)
		return []byte("0123456789abcdef"), nil
	})
	if err != nil || strings.Join(read, " ") != "/keys/a /keys/b" {
		t.Fatalf("read %v, %v", read, err)
	}
	if g, ok := keyed.Grant(Workload{Cgroup: "/sallyport/shop"}, "orders"); !ok || g.Masks().Len() != 2 {
		t.Errorf("grant %v, %d masks", ok, g.Masks().Len())
	}
}

func TestKeyThatIsNotThereOrShortIsAnError(t *testing.T) {
	set, err := Compile([]v1alpha1.AccessPolicy{masked("a", "*.ssn", "hash")})
	if err != nil {
		t.Fatal(err)
	}
	missing := errors.New("no such file")
	if _, err := set.Keyed(func(v1alpha1.SecretSource) ([]byte, error) { return nil, missing }); !errors.Is(err, missing) || !strings.Contains(err.Error(), "policy a: spec.masking.hashKey") {
		t.Errorf("got %v", err)
	}
	if _, err := set.Keyed(func(v1alpha1.SecretSource) ([]byte, error) { return []byte("short"), nil }); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("got %v", err)
	}
}
