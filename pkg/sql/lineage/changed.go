package lineage

import (
	"maps"
	"slices"

	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// A Changed is what statements did to the catalog, by name: names that may mean something else now, tables that were altered, and tables
// that are new. The zero value is nothing.
type Changed struct {
	all bool
	// names may mean anything.
	names map[string]bool
	// altered are tables that may have other columns besides, of which none holds what was masked.
	altered map[string]bool
	// created are tables that came to be. They hold nothing that was masked.
	created map[string][]*catalog.Relation
}

// Empty is true when nothing was changed.
func (c Changed) Empty() bool {
	return !c.all && len(c.names) == 0 && len(c.altered) == 0 && len(c.created) == 0
}

// Union is what either changed.
func (c Changed) Union(other Changed) Changed {
	switch {
	case c.Empty():
		return other
	case other.Empty():
		return c
	}
	u := Changed{all: c.all || other.all, names: maps.Clone(c.names), altered: maps.Clone(c.altered), created: maps.Clone(c.created)}
	for name := range other.names {
		u.name(name)
	}
	for name := range other.altered {
		u.alter(name)
	}
	for name, relations := range other.created {
		for _, r := range relations {
			u.create(r, name)
		}
	}
	return u
}

// dirty is whether a name may mean something that is not known.
func (c *Changed) dirty(name string) bool { return c.all || c.names[name] }

func (c *Changed) name(name string) {
	if c.names == nil {
		c.names = map[string]bool{}
	}
	c.names[name] = true
}

func (c *Changed) alter(name string) {
	if c.altered == nil {
		c.altered = map[string]bool{}
	}
	c.altered[name] = true
}

func (c *Changed) create(r *catalog.Relation, name string) {
	if c.created == nil {
		c.created = map[string][]*catalog.Relation{}
	}
	if !slices.Contains(c.created[name], r) {
		c.created[name] = append(slices.Clone(c.created[name]), r)
	}
}
