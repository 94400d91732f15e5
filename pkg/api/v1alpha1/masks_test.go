package v1alpha1

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMaskValidation(t *testing.T) {
	masks := func(masks ...Mask) func(*AccessPolicy) { return func(a *AccessPolicy) { a.Spec.Masks = masks } }
	columns := func(patterns ...string) func(*AccessPolicy) { return masks(Mask{Columns: patterns, With: MaskRedact}) }
	detect := func(names ...string) func(*AccessPolicy) { return masks(Mask{Detect: names, With: MaskPartial}) }
	masking := func(m Masking) func(*AccessPolicy) {
		return func(a *AccessPolicy) {
			a.Spec.Masks = []Mask{{Columns: []string{"*.ssn"}, With: MaskRedact}}
			a.Spec.Masking = m
		}
	}
	hidden, lines := "hidden", "two\nlines"
	for _, test := range []fieldTest[*AccessPolicy]{
		{name: "a column of a table is masked", change: columns("public.customers.email")},
		{name: "a part may be any name", change: columns("*.customers.*", "public.*.ssn", "*.*.ssn", "*.ssn")},
		{name: "a name with a dot is in quotes", change: columns(`public."odd.table"."a column"`)},
		{name: "a table of no schema is refused", change: columns("customers.email"), field: "spec.masks[0].columns[0]", message: "expected schema.table.column"},
		{name: "a column of no table is refused", change: columns("email"), field: "spec.masks[0].columns[0]"},
		{name: "every column is refused", change: columns("*.*.*"), field: "spec.masks[0].columns[0]", message: "every column"},
		{name: "an empty part is refused", change: columns("public..email"), field: "spec.masks[0].columns[0]"},
		{name: "a part of a name is no pattern", change: columns("public.customers.e*"), field: "spec.masks[0].columns[0]"},
		{name: "a quote is closed", change: columns(`public."customers.email`), field: "spec.masks[0].columns[0]"},
		{name: "four parts are refused", change: columns("a.b.c.d"), field: "spec.masks[0].columns[0]"},
		{name: "an empty pattern is refused", change: columns(""), field: "spec.masks[0].columns[0]"},
		{name: "every detector is known", change: detect(Detectors()...)},
		{name: "another is not", change: detect("emails"), field: "spec.masks[0].detect[0]", message: `found "emails"`},
		{name: "a detector is named once", change: detect("email", "email"), field: "spec.masks[0].detect[1]", message: "each once"},
		{name: "a mask has columns or detectors", change: masks(Mask{With: MaskNull}), field: "spec.masks[0]", message: "neither"},
		{name: "a mask has not both", change: masks(Mask{Columns: []string{"*.a"}, Detect: []string{"email"}, With: MaskNull}), field: "spec.masks[0]", message: "both"},
		{name: "a method is required", change: masks(Mask{Columns: []string{"*.a"}}), field: "spec.masks[0].with", message: "is missing"},
		{name: "names are unique", change: masks(Mask{Name: "mask-2", Columns: []string{"*.a"}, With: MaskNull}, Mask{Columns: []string{"*.b"}, With: MaskNull}),
			field: "spec.masks[1].name", message: "spec.masks[0].name"},
		{name: "a name is a label", change: masks(Mask{Name: "A b", Columns: []string{"*.a"}, With: MaskNull}), field: "spec.masks[0].name"},
		{name: "fixed has a value", change: masks(Mask{Columns: []string{"*.a"}, With: MaskFixed, Value: &hidden})},
		{name: "fixed without one is refused", change: masks(Mask{Columns: []string{"*.a"}, With: MaskFixed}), field: "spec.masks[0].value", message: "is missing"},
		{name: "a value is for fixed", change: masks(Mask{Columns: []string{"*.a"}, With: MaskNull, Value: &hidden}), field: "spec.masks[0].value", message: "contradicts"},
		{name: "a value is one line", change: masks(Mask{Columns: []string{"*.a"}, With: MaskFixed, Value: &lines}), field: "spec.masks[0].value"},
		{name: "inference may be denied", change: masks(Mask{Columns: []string{"*.a"}, With: MaskNull, Inference: InferenceDeny})},
		{name: "inference is allowed or denied", change: masks(Mask{Columns: []string{"*.a"}, With: MaskNull, Inference: "maybe"}), field: "spec.masks[0].inference"},
		{name: "inference is about columns", change: masks(Mask{Detect: []string{"email"}, With: MaskNull, Inference: InferenceDeny}), field: "spec.masks[0].inference"},
		{name: "hash has a key", change: func(a *AccessPolicy) {
			a.Spec.Masks = []Mask{{Columns: []string{"*.a"}, With: MaskHash}}
			a.Spec.Masking.HashKey = &SecretSource{File: "/run/secrets/key"}
		}},
		{name: "hash without a key is refused", change: masks(Mask{Columns: []string{"*.a"}, With: MaskHash}), field: "spec.masking.hashKey", message: "spec.masks[0] says hash"},
		{name: "a key is not in the document", change: masking(Masking{HashKey: &SecretSource{File: "hunter2"}}), field: "spec.masking.hashKey.file", message: InlineSecret},
		{name: "lenient is a mode", change: masking(Masking{Mode: MaskingLenient})},
		{name: "lax is not", change: masking(Masking{Mode: "lax"}), field: "spec.masking.mode", message: `found "lax"`},
		{name: "a function is trusted by its schema and name", change: masking(Masking{TrustedFunctions: []string{"public.Area"}})},
		{name: "a function of any schema is not", change: masking(Masking{TrustedFunctions: []string{"*.area"}}), field: "spec.masking.trustedFunctions[0]", message: "expected schema.name"},
		{name: "a function without a schema is not", change: masking(Masking{TrustedFunctions: []string{"area"}}), field: "spec.masking.trustedFunctions[0]"},
		{name: "masking is about masks", change: func(a *AccessPolicy) { a.Spec.Masking.Mode = MaskingStrict }, field: "spec.masking", message: "has none"},
	} {
		t.Run(test.name, func(t *testing.T) { test.check(t, accessPolicy(test.change).Validate()) })
	}
}

func TestMaskDefaults(t *testing.T) {
	got := accessPolicy(func(a *AccessPolicy) {
		a.Spec.Masks = []Mask{{Columns: []string{"*.a"}, With: MaskNull}, {Name: "b", Columns: []string{"*.b"}, With: MaskNull, Inference: InferenceDeny}}
	}).Spec
	want := []Mask{{Name: "mask-1", Columns: []string{"*.a"}, With: MaskNull, Inference: InferenceAllow},
		{Name: "b", Columns: []string{"*.b"}, With: MaskNull, Inference: InferenceDeny}}
	if diff := cmp.Diff(want, got.Masks); diff != "" || got.Masking.Mode != MaskingStrict {
		t.Errorf("mode %q, masks %s", got.Masking.Mode, diff)
	}
}
