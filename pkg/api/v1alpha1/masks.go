package v1alpha1

// Methods of a Mask: how a value is rewritten.
const (
	MaskRedact  = "redact"
	MaskPartial = "partial"
	MaskHash    = "hash"
	MaskNull    = "null"
	MaskFixed   = "fixed"
)

// Values of Mask.Inference.
const (
	InferenceAllow   = "allow"
	InferenceDeny    = "deny"
	InferenceApprove = "approve"
)

// Values of Masking.Mode.
const (
	MaskingStrict  = "strict"
	MaskingLenient = "lenient"
)

// Detectors are what Mask.Detect may name, in the order in which masking.md explains them.
func Detectors() []string {
	return []string{
		"email", "payment-card", "iban", "phone",
		"us-ssn", "de-tax-id", "fr-nir", "es-dni", "it-codice-fiscale", "nl-bsn", "pl-pesel", "uk-nhs", "ch-ahv", "br-cpf", "in-aadhaar",
		"jwt", "private-key", "cloud-key",
	}
}

// Mask is one line of what is hidden in results: columns by their names, or values by what they look like.
type Mask struct {
	// Name is what metrics and records call the mask: a DNS label, unique within the policy. Default: mask-N, where N is its
	// place in the list, counted from 1.
	Name string `yaml:"name,omitempty" json:"name,omitempty"`
	// Columns are the base columns that the mask hides, as schema.table.column; a part "*" is any name, and *.column is that
	// column of any table. Upper and lower case are the same; a name with a dot is put in double quotes. Not beside detect.
	// Default: none.
	Columns []string `yaml:"columns,omitempty" json:"columns,omitempty"`
	// Detect are the detectors that find what the mask hides in text of columns that no mask names (masking.md lists them).
	// Not beside columns. Default: none.
	Detect []string `yaml:"detect,omitempty" json:"detect,omitempty"`
	// With is "redact", "partial", "hash", "null" or "fixed" (masking.md says what each makes of each type).
	With string `yaml:"with" json:"with"`
	// Value is what "fixed" puts in place, as text; a type that does not accept it becomes NULL. Default: none.
	Value *string `yaml:"value,omitempty" json:"value,omitempty"`
	// Inference says whether a statement may use the columns where they can be guessed (WHERE, JOIN, ORDER BY, GROUP BY,
	// DISTINCT, arguments): "allow", "deny", or "approve", which holds it until people have approved it. Default: allow.
	Inference string `yaml:"inference,omitempty" json:"inference,omitempty"`
	// Approval says who approves, for inference "approve" alone.
	Approval *Approval `yaml:"approval,omitempty" json:"approval,omitempty"`
}

// Masking says how the masks of a policy work.
type Masking struct {
	// Mode is what a value is taken for whose origin is not known: "strict" (every masked column that the statement can reach)
	// or "lenient" (none). Default: strict.
	Mode string `yaml:"mode,omitempty" json:"mode,omitempty"`
	// TrustedFunctions are functions, as schema.name, that a statement may call though their bodies can not be read. What they
	// return counts as made of their arguments alone. Default: none.
	TrustedFunctions []string `yaml:"trustedFunctions,omitempty" json:"trustedFunctions,omitempty"`
	// HashKey is the key of "hash", 16 bytes at least; it is read when documents are loaded. Needed when a mask says "hash".
	// Default: none.
	HashKey *SecretSource `yaml:"hashKey,omitempty" json:"hashKey,omitempty"`
}
