package lineage

import (
	"slices"
	"strings"
	"sync"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

const (
	// maxMemos bounds for how many search paths a Schema remembers what relations contain.
	maxMemos = 32
	// maxTrees bounds how many parse trees of the catalog's texts a Schema keeps.
	maxTrees = 256
)

// A Schema is a catalog as one policy's masks see it. It remembers what views and columns contain. It is safe for concurrent use.
type Schema struct {
	catalog   *catalog.Catalog
	sensitive Sensitive
	options   Options
	masks     Set

	mu sync.Mutex // guards what follows, and all memos
	// memos are by search path, because functions in views follow that of the session.
	memos map[string]*memo
	// trees are those of function bodies and expressions, by their text.
	trees map[string]*pg.ParseResult
}

// New looks at a catalog with the masks that sensitive knows.
func New(c *catalog.Catalog, sensitive Sensitive, o Options) *Schema {
	if o.Trusted == nil {
		o.Trusted = func(string, string) bool { return false }
	}
	s := &Schema{catalog: c, sensitive: sensitive, options: o, memos: map[string]*memo{}, trees: map[string]*pg.ParseResult{}}
	c.Relations(func(r *catalog.Relation) bool {
		for i := range r.Columns {
			if mask, ok := sensitive(r, r.Columns[i].Name); ok {
				s.masks = s.masks.Union(Set{mask})
			}
		}
		return true
	})
	return s
}

// Masks are all masks that columns of this database have. Where there are none, nothing is to be done.
func (s *Schema) Masks() Set { return s.masks }

// memoFor is what is remembered for a search path.
func (s *Schema) memoFor(path []string) *memo {
	key := strings.Join(path, "\x00")
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.memos[key]
	if m == nil {
		if len(s.memos) >= maxMemos {
			clear(s.memos)
		}
		m = &memo{relations: map[uint32]remembered{}}
		s.memos[key] = m
	}
	return m
}

// tree is the parse tree of a text from the catalog. It is shared, and not to be changed. ok is false for one that can not be read.
func (s *Schema) tree(text string) (tree *pg.ParseResult, ok bool) {
	s.mu.Lock()
	tree = s.trees[text]
	s.mu.Unlock()
	if tree != nil {
		return tree, true
	}
	tree, foreign, err := sql.Tree(text)
	if err != nil || foreign {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.trees) >= maxTrees {
		clear(s.trees)
	}
	s.trees[text] = tree
	return tree, true
}

// memoFor is the schema's memory, or where the picture is not what the server has, one for this statement.
func (a *analyzer) memoFor(path []string) *memo {
	if !a.changed.Empty() {
		return &memo{relations: map[uint32]remembered{}}
	}
	return a.s.memoFor(path)
}

func (s *Schema) analyzer(at Session) *analyzer {
	a := &analyzer{s: s, catalog: s.catalog, path: at.SearchPath, runtime: at.SearchPath, changed: at.Changed, uses: map[Use]struct{}{},
		unknownUses: map[string]struct{}{}}
	a.memo = a.memoFor(at.SearchPath)
	return a
}

// ValueOf is what the column contains that RowDescription names: by the OID of a relation and the number of an attribute, 0 for a
// whole row. What is not in the catalog may contain everything.
func (s *Schema) ValueOf(relation uint32, attribute int16, at Session) Value {
	a := s.analyzer(at)
	v := value{unknown: true, masks: s.masks}
	r := s.catalog.Relation(relation)
	switch {
	case r == nil:
	case attribute == 0:
		v = rowValue(a.relation(r))
	case attribute < 0: // a system column
		v = clean(0)
	default:
		for _, f := range a.relation(r).fields {
			if f.value.attribute == attribute {
				v = f.value
			}
		}
	}
	return v.export(s.masks)
}

// Analyze says what each statement of a text does with masked values, in order. The error is the parser's, safe to show.
func (s *Schema) Analyze(text string, at Session) ([]Statement, error) {
	tree, foreign, err := sql.Tree(text)
	if err != nil {
		return nil, err
	}
	statements := make([]Statement, 0, len(tree.Stmts))
	at.SearchPath = slices.Clone(at.SearchPath)
	for _, raw := range tree.Stmts {
		a := s.analyzer(at)
		columns := a.command(raw.Stmt, &scope{})
		if foreign {
			a.deny("a name that is not UTF-8 can not be compared with the names of masked columns")
		}
		a.implicitCasts()
		st := a.finish(columns)
		if len(s.masks) == 0 && st.Reach.Empty() {
			st.Denied = "" // nothing is masked that could be shown
		}
		statements = append(statements, st)
		at.Changed = at.Changed.Union(st.Changed)
		at.SearchPath = append(at.SearchPath, a.morePath...)
	}
	return statements, nil
}
