package lineage

import "slices"

// A Set is a set of masks: their indices, ascending. Sets are shared and never changed. nil is the empty one.
type Set []int

// Empty is true for a set of nothing.
func (s Set) Empty() bool { return len(s) == 0 }

// Has is whether a mask is in the set.
func (s Set) Has(mask int) bool {
	_, found := slices.BinarySearch(s, mask)
	return found
}

// Union is a set of what is in either.
func (s Set) Union(other Set) Set {
	switch {
	case len(other) == 0 || s.contains(other):
		return s
	case len(s) == 0 || other.contains(s):
		return other
	}
	union := make(Set, 0, len(s)+len(other))
	for len(s) > 0 && len(other) > 0 {
		switch {
		case s[0] < other[0]:
			union, s = append(union, s[0]), s[1:]
		case s[0] > other[0]:
			union, other = append(union, other[0]), other[1:]
		default:
			union, s, other = append(union, s[0]), s[1:], other[1:]
		}
	}
	return append(append(union, s...), other...)
}

func (s Set) contains(other Set) bool {
	for _, mask := range other {
		if !s.Has(mask) {
			return false
		}
	}
	return true
}

func (s Set) equal(other Set) bool { return slices.Equal(s, other) }
