package mask

import (
	"slices"
	"strings"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

// A Source is the masks of one policy, whose document is valid and has its defaults.
type Source struct {
	Policy  string
	Masks   []v1alpha1.Mask
	Masking v1alpha1.Masking
	// Key is the key of "hash"; without one, what is to be hashed becomes NULL.
	Key []byte
}

// A Mask is what there is to say of a mask where it was applied.
type Mask struct {
	Policy, Name string
	// Inference is one of the values of v1alpha1.Mask.Inference, Approval who approves where it is v1alpha1.InferenceApprove.
	Inference string
	Approval  *v1alpha1.Approval
}

// Rules are the masks of some policies together. They are numbered from 0 in the order of the sources. Rules are immutable; the nil
// Rules mask nothing.
type Rules struct {
	masks   []rule
	sources []Source // those with masks
	trusted []map[v1alpha1.FunctionName]bool
	columns bool
	detects detectors // of all masks
	strict  bool
}

type rule struct {
	Mask
	with    string
	value   string
	columns []v1alpha1.ColumnPattern
	detects detectors
	key     []byte
}

// Compile joins the masks of sources; it is nil when they have none.
func Compile(sources []Source) *Rules {
	r := &Rules{}
	for _, s := range sources {
		if len(s.Masks) == 0 {
			continue
		}
		r.sources = append(r.sources, s)
		r.strict = r.strict || s.Masking.Mode != v1alpha1.MaskingLenient
		trusted := map[v1alpha1.FunctionName]bool{}
		for _, name := range s.Masking.TrustedFunctions {
			if f, wrong := v1alpha1.ParseFunction(name); wrong == "" {
				trusted[f] = true
			}
		}
		r.trusted = append(r.trusted, trusted)
		for _, m := range s.Masks {
			r.add(s, m)
		}
	}
	if len(r.masks) == 0 {
		return nil
	}
	return r
}

func (r *Rules) add(s Source, m v1alpha1.Mask) {
	made := rule{Mask: Mask{Policy: s.Policy, Name: m.Name, Inference: m.Inference, Approval: m.Approval}, with: m.With, key: s.Key}
	if m.Value != nil {
		made.value = *m.Value
	}
	for _, pattern := range m.Columns {
		if c, wrong := v1alpha1.ParseColumn(pattern); wrong == "" {
			made.columns = append(made.columns, c)
			r.columns = true
		}
	}
	for _, name := range m.Detect {
		made.detects |= detectorsNamed(name)
	}
	r.detects |= made.detects
	r.masks = append(r.masks, made)
}

// Len is the number of masks.
func (r *Rules) Len() int {
	if r == nil {
		return 0
	}
	return len(r.masks)
}

// Mask is the mask of a number.
func (r *Rules) Mask(i int) Mask { return r.masks[i].Mask }

// HasColumns is true when there are masks that name columns: what values contain is to be found out then.
func (r *Rules) HasColumns() bool { return r != nil && r.columns }

// Detects is true when there are masks that look at text of columns that no mask names.
func (r *Rules) Detects() bool { return r != nil && r.detects != 0 }

// Strict is true when a value whose origin is not known is to be taken for all that the statement can reach: when one of the
// policies with masks says so.
func (r *Rules) Strict() bool { return r != nil && r.strict }

// Trusted is true for a function that every policy with masks trusts: what one policy hides, another can not release.
func (r *Rules) Trusted(schema, function string) bool {
	return r != nil && !slices.ContainsFunc(r.trusted, func(t map[v1alpha1.FunctionName]bool) bool {
		return !t[v1alpha1.FunctionName{Schema: schema, Name: function}]
	})
}

// Column is the first mask that names the column.
func (r *Rules) Column(schema, table, column string) (mask int, ok bool) {
	if !r.HasColumns() {
		return 0, false
	}
	schema, table, column = strings.ToLower(schema), strings.ToLower(table), strings.ToLower(column)
	for i := range r.masks {
		for _, c := range r.masks[i].columns {
			if (c.Schema == "" || c.Schema == schema) && (c.Table == "" || c.Table == table) && (c.Column == "" || c.Column == column) {
				return i, true
			}
		}
	}
	return 0, false
}

// detecting is the first mask with a detector.
func (r *Rules) detecting(d detectors) int {
	return slices.IndexFunc(r.masks, func(m rule) bool { return m.detects&d != 0 })
}
