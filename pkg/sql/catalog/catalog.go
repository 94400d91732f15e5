package catalog

// FirstUserOID is the first OID that initdb does not give away: what is below it is the server's own, whatever its name and schema
// (FirstNormalObjectId in transam.h of PostgreSQL).
const FirstUserOID = 16384

// Kinds of relations: pg_class.relkind.
const (
	Table            = 'r'
	PartitionedTable = 'p'
	View             = 'v'
	MaterialisedView = 'm'
	ForeignTable     = 'f'
	Sequence         = 'S'
	TOAST            = 't'
	CompositeType    = 'c'
)

// Kinds of types: pg_type.typtype, and Array for the arrays among the base types.
const (
	Base       = 'b'
	Composite  = 'c'
	Domain     = 'd'
	Enum       = 'e'
	Range      = 'r'
	Multirange = 'm'
	Pseudo     = 'p'
	Array      = 'a'
)

// A Catalog is the picture of one database. It is immutable.
type Catalog struct {
	relations      map[uint32]*Relation
	relationsNamed map[string][]*Relation
	types          map[uint32]*Type
	typesNamed     map[string][]*Type
	functions      map[uint32]*Function
	functionsNamed map[string][]*Function
	// operators has every operator's name, with those that are not the server's own.
	operators map[string][]*Operator
	casts     []Cast
	// marker tells this picture from one that is taken after a change; see Current.
	marker string
}

// A Relation is what has columns: a table, view, sequence or composite type.
type Relation struct {
	OID          uint32
	Schema, Name string
	// Kind is one of the constants, as pg_class.relkind.
	Kind byte
	// Type is the type of its rows.
	Type uint32
	// Columns are ordered by attribute number; those that were dropped are not among them.
	Columns []Column
	// Definition is the query of a view or materialised view, with every name qualified that is not in pg_catalog; "" where it could
	// not be read (somebody held a lock), which is to be taken for a query that may return anything.
	Definition string
	// Parents and Children are the tables that it inherits from or is a partition of, and those that are so of it.
	Parents, Children []uint32
	// ReferencedBy are the tables with foreign keys to it.
	ReferencedBy []uint32
	// TOASTOf is the table whose long values this TOAST table holds.
	TOASTOf uint32
	// Rules is true when there are rules that do something else, or something besides, when it is changed.
	Rules bool
	// Triggers are those that users made.
	Triggers []Trigger
	// Checks are the expressions of its CHECK constraints and row-security policies.
	Checks []string
}

// A Trigger is a function that runs when a relation is changed.
type Trigger struct {
	Function uint32
	// Before is true where it runs before the change of a row, and may make it another row.
	Before bool
	// Instead is true where it runs in place of the change, and says what was changed.
	Instead bool
}

// A Column is one attribute of a relation.
type Column struct {
	Name string
	// Attribute is its number, from 1.
	Attribute int16
	Type      uint32
	// Typmod is the type's modifier, -1 without one.
	Typmod int32
	// Generated is true where Expression is always the column's value, and "" where it could not be read; else Expression is its default,
	// "" without one.
	Generated  bool
	Expression string
}

// Column finds a column by name.
func (r *Relation) Column(name string) *Column {
	for i := range r.Columns {
		if r.Columns[i].Name == name {
			return &r.Columns[i]
		}
	}
	return nil
}

// Attribute finds a column by number.
func (r *Relation) Attribute(number int16) *Column {
	for i := range r.Columns {
		if r.Columns[i].Attribute == number {
			return &r.Columns[i]
		}
	}
	return nil
}

// A Type is a data type.
type Type struct {
	OID          uint32
	Schema, Name string
	Kind         byte
	// Element is an array's element, a range's subtype, a multirange's range, a domain's base; else 0.
	Element uint32
	// Array is the type of arrays of it, 0 without one.
	Array uint32
	// Mod is the modifier of a domain's base, -1 without one.
	Mod int32
	// Relation holds a composite type's fields, as columns.
	Relation uint32
	// Delimiter stands between the elements of an array of it.
	Delimiter byte
	// Labels are an enumeration's, in their order.
	Labels []string
	// Checks are the expressions of a domain's CHECK constraints, on VALUE.
	Checks []string
	// Default is the expression of a domain's default, "" without one.
	Default string
}

// Kinds of functions: pg_proc.prokind.
const (
	PlainFunction = 'f'
	Procedure     = 'p'
	Aggregate     = 'a'
	Window        = 'w'
)

// A Function is a function, procedure or aggregate.
type Function struct {
	OID          uint32
	Schema, Name string
	Kind         byte
	// Language is pg_language.lanname: internal, c, sql, plpgsql …
	Language string
	// Volatility is i, s or v: IMMUTABLE, STABLE, VOLATILE.
	Volatility byte
	Returns    uint32
	ReturnsSet bool
	// Arguments are all of them, results included, in the order of the definition.
	Arguments []Argument
	// Variadic is true where the last argument may be given as any number of them.
	Variadic bool
	// Defaults are the expressions of the defaults of the last arguments, with commas between them.
	Defaults string
	// Body is pg_proc.prosrc: the text of a function in SQL, the symbol of one in C. SQLBody is the body in the SQL standard's form, which
	// is there in place of the text. Both are "" for the server's own functions.
	Body, SQLBody string
	// Config are the settings that hold while it runs, as name=value.
	Config []string
	// Extension is the extension that it came with, "" without one.
	Extension string
	// Supports are the functions that an aggregate is made of.
	Supports []uint32
}

// Builtin is true for the server's own functions.
func (f *Function) Builtin() bool { return f.OID < FirstUserOID }

// An Argument is one parameter of a function.
type Argument struct {
	Name string
	Type uint32
	// Mode is i, o, b, v or t: IN, OUT, INOUT, VARIADIC, TABLE.
	Mode byte
}

// In is true for an argument that a caller gives.
func (a Argument) In() bool { return a.Mode == 'i' || a.Mode == 'b' || a.Mode == 'v' }

// Out is true for a column of the result.
func (a Argument) Out() bool { return a.Mode == 'o' || a.Mode == 'b' || a.Mode == 't' }

// An Operator is one that is not the server's own.
type Operator struct {
	Schema, Name string
	// Left is 0 for a prefix operator.
	Left, Right uint32
	Function    uint32
}

// A Cast is one with a function that is not the server's own.
type Cast struct {
	Source, Target uint32
	Function       uint32
	// Implicit is true for a cast that is applied without being asked for.
	Implicit bool
}

// Relation finds a relation by OID, nil when there is none.
func (c *Catalog) Relation(oid uint32) *Relation { return c.relations[oid] }

// RelationNamed finds a relation by schema and name, nil when there is none.
func (c *Catalog) RelationNamed(schema, name string) *Relation {
	for _, r := range c.relationsNamed[name] {
		if r.Schema == schema {
			return r
		}
	}
	return nil
}

// RelationsNamed are the relations of that name in all schemas.
func (c *Catalog) RelationsNamed(name string) []*Relation { return c.relationsNamed[name] }

// Relations calls f with every relation, in no order, until f returns false.
func (c *Catalog) Relations(f func(*Relation) bool) {
	for _, r := range c.relations {
		if !f(r) {
			return
		}
	}
}

// Type finds a type by OID, nil when there is none.
func (c *Catalog) Type(oid uint32) *Type { return c.types[oid] }

// TypesNamed are the types of that name in all schemas.
func (c *Catalog) TypesNamed(name string) []*Type { return c.typesNamed[name] }

// Function finds a function by OID, nil when there is none.
func (c *Catalog) Function(oid uint32) *Function { return c.functions[oid] }

// Functions are the functions of that name in a schema.
func (c *Catalog) Functions(schema, name string) (found []*Function) {
	for _, f := range c.functionsNamed[name] {
		if f.Schema == schema {
			found = append(found, f)
		}
	}
	return found
}

// FunctionsNamed are the functions of that name in all schemas.
func (c *Catalog) FunctionsNamed(name string) []*Function { return c.functionsNamed[name] }

// Operators are the operators of that name that are not the server's own, in all schemas.
func (c *Catalog) Operators(name string) []*Operator { return c.operators[name] }

// KnowsOperator is whether there is an operator of that name at all.
func (c *Catalog) KnowsOperator(name string) bool {
	_, ok := c.operators[name]
	return ok
}

// Casts are those whose functions are not the server's own.
func (c *Catalog) Casts() []Cast { return c.casts }
