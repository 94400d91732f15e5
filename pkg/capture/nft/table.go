package nft

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tablePrefix begins the names of an instance's tables; what follows differs between any two.
func tablePrefix(instance string) string { return "sallyport-" + instance + "-" }

// A table is one of ours in the kernel, with what it is to say.
type table struct {
	socket *socket
	prefix string
	family nftables.TableFamily
	serial func() uint64
	// unowned makes tables without an owner.
	unowned bool

	now   *nftables.Table // nil: there is none yet
	owned bool
	plan  plan
	print [sha256.Size]byte // what the kernel held when it was written
	// foreign are tables with our prefix that another process owns.
	foreign []string
	known   map[string]uint64 // what the counters said last
}

// apply makes the kernel's table say what a plan says: sets change in place where that is enough. On an error all is as it was.
func (t *table) apply(p plan) error {
	if t.now != nil && sameShape(t.plan, p) && t.update(p) == nil {
		return t.written(p)
	}
	// What was in the way of a change is not in the way of a whole new table.
	return t.rewrite(p)
}

// rewrite makes a new table.
func (t *table) rewrite(p plan) error {
	if err := t.replace(p); err != nil {
		return err
	}
	return t.written(p)
}

func (t *table) written(p plan) (err error) {
	t.plan = p
	t.print, err = t.fingerprint()
	return err
}

var errNoTable = errors.New("there is no table")

// sameShape is whether two plans differ in the elements of sets alone.
func sameShape(a, b plan) bool {
	alone, first := a.only()
	still, second := b.only()
	return a.whole == b.whole && first == second && alone == still && slices.Equal(a.levels(), b.levels()) &&
		slices.Equal(a.canaries(), b.canaries())
}

// update changes sets.
func (t *table) update(p plan) error {
	b := &builder{socket: t.socket, table: t.now}
	if !slices.Equal(t.plan.targets, p.targets) {
		b.refill(p.targets)
	}
	if _, alone := p.only(); !alone {
		for _, level := range p.levels() {
			b.change(level, t.plan.entries, p.entries)
		}
	}
	if b.err != nil {
		return b.err
	}
	if err := t.socket.commit(); err != nil {
		return fmt.Errorf("change table %s: %w", t.now.Name, err)
	}
	return nil
}

// refill prepares what makes the targets others.
func (b *builder) refill(t targets) {
	of4, of6 := t.elements()
	for _, one := range []struct {
		name     string
		elements []nftables.SetElement
	}{{targets4Set, of4}, {targets6Set, of6}} {
		set := &nftables.Set{Table: b.table, Name: one.name}
		b.FlushSet(set)
		b.fill(set, one.elements)
	}
}

// change prepares what makes the entries of one level others.
func (b *builder) change(level uint32, before, after []entry) {
	sets := setsOf(b.table, level)
	gone := slices.DeleteFunc(slices.Clone(before), func(e entry) bool { return slices.Contains(after, e) })
	come := slices.DeleteFunc(slices.Clone(after), func(e entry) bool { return slices.Contains(before, e) })
	ids, ports4, ports6 := elementsOf(gone, level)
	newIDs, newPorts4, newPorts6 := elementsOf(come, level)
	for _, one := range []struct {
		set       *nftables.Set
		gone, new []nftables.SetElement
	}{{sets.ids, ids, newIDs}, {sets.ports4, ports4, newPorts4}, {sets.ports6, ports6, newPorts6}} {
		for chunk := range slices.Chunk(one.gone, elementsPerMessage) {
			if b.err == nil {
				b.err = b.SetDeleteElements(one.set, chunk)
			}
		}
		b.fill(one.set, one.new)
	}
}

// replace makes a new table with what a plan says.
func (t *table) replace(p plan) error {
	return t.replaceBy(func(b *builder, counters map[string]uint64) error { return b.build(p, counters) })
}

// replaceBy makes a new table, which a function fills, and removes all others of the instance in the same transaction: there is
// no moment without one.
func (t *table) replaceBy(build func(b *builder, counters map[string]uint64) error) error {
	stale, err := t.others()
	if err != nil {
		return err
	}
	counters, err := t.counters()
	if err != nil {
		return err
	}
	made := &nftables.Table{Name: fmt.Sprintf("%s%x", t.prefix, t.serial()), Family: t.family}
	owned, err := t.socket.makeTable(made, !t.unowned)
	if err != nil {
		return err
	}
	if err = build(&builder{socket: t.socket, table: made}, counters); err == nil {
		for _, name := range stale {
			t.socket.DelTable(&nftables.Table{Name: name, Family: t.family})
		}
		err = t.socket.commit()
	}
	if err != nil {
		t.socket.DelTable(made)
		return errors.Join(fmt.Errorf("write table %s: %w", made.Name, err), t.socket.commit())
	}
	t.now, t.owned = made, owned
	return nil
}

// others are the instance's tables that are there; those that another process owns are not ours to remove.
func (t *table) others() ([]string, error) {
	bodies, err := t.socket.dump(unix.NFT_MSG_GETTABLE, t.family)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	t.foreign = nil
	var names []string
	for _, body := range bodies {
		name := text(body, unix.NFTA_TABLE_NAME)
		if !strings.HasPrefix(name, t.prefix) {
			continue
		}
		if number(body, unix.NFTA_TABLE_FLAGS)&tableOwner != 0 && number(body, tableOwnerAttribute) != t.socket.port {
			t.foreign = append(t.foreign, name)
			continue
		}
		names = append(names, name)
	}
	return names, nil
}

// tableOwnerAttribute is NFTA_TABLE_OWNER, linux/netfilter/nf_tables.h.
const tableOwnerAttribute = 7

// remove removes all of the instance's tables in the namespace.
func (t *table) remove() error {
	names, err := t.others()
	if err != nil || len(names) == 0 {
		return err
	}
	for _, name := range names {
		t.socket.DelTable(&nftables.Table{Name: name, Family: t.family})
	}
	if err := t.socket.commit(); err != nil {
		return fmt.Errorf("remove tables: %w", err)
	}
	t.now = nil
	return nil
}

// counters are the packets that the table has counted, by reason; when it is gone, those that it had when it was asked last.
func (t *table) counters() (map[string]uint64, error) {
	if t.now == nil {
		return t.known, nil
	}
	bodies, err := t.socket.dump(unix.NFT_MSG_GETOBJ, t.family, netlink.Attribute{
		Type: unix.NFTA_OBJ_TABLE, Data: []byte(t.now.Name + "\x00"),
	})
	if errors.Is(err, unix.ENOENT) {
		return t.known, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	counters := map[string]uint64{}
	for _, body := range bodies {
		if text(body, unix.NFTA_OBJ_TABLE) != t.now.Name {
			continue
		}
		if value := attribute(attribute(body, unix.NFTA_OBJ_DATA), unix.NFTA_COUNTER_PACKETS); len(value) == 8 {
			counters[text(body, unix.NFTA_OBJ_NAME)] = binary.BigEndian.Uint64(value)
		}
	}
	for reason, n := range t.known {
		counters[reason] = max(counters[reason], n)
	}
	t.known = counters
	return counters, nil
}

// intact is whether the kernel's table is what was written. It is asked twice: a change elsewhere may have come between.
func (t *table) intact() (bool, error) {
	for range 2 {
		print, err := t.fingerprint()
		if err == nil && print == t.print {
			return true, nil
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return false, err
		}
	}
	return false, nil
}

// fingerprint is a hash of all that the kernel holds of the table, but counters' values: what is made anew has other handles,
// so that it differs even where it says the same.
func (t *table) fingerprint() ([sha256.Size]byte, error) {
	if t.now == nil {
		return [sha256.Size]byte{}, errNoTable
	}
	name := []byte(t.now.Name + "\x00")
	var parts [][]byte
	for _, one := range []struct {
		kind, attribute uint16
		filter          bool
	}{
		{unix.NFT_MSG_GETTABLE, unix.NFTA_TABLE_NAME, false},
		{unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, false},
		{unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, true},
		{unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE, true},
	} {
		var filter []netlink.Attribute
		if one.filter {
			filter = append(filter, netlink.Attribute{Type: one.attribute, Data: name})
		}
		bodies, err := t.socket.dump(one.kind, t.family, filter...)
		if err != nil {
			return [sha256.Size]byte{}, fmt.Errorf("read table %s: %w", t.now.Name, err)
		}
		for _, body := range bodies {
			if text(body, one.attribute) != t.now.Name {
				continue
			}
			parts = append(parts, body)
			if one.kind == unix.NFT_MSG_GETSET {
				elements, err := t.elements(text(body, unix.NFTA_SET_NAME))
				if err != nil {
					return [sha256.Size]byte{}, err
				}
				parts = append(parts, elements...)
			}
		}
	}
	hash := sha256.New()
	for _, part := range parts {
		hash.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		hash.Write(part)
	}
	return [sha256.Size]byte(hash.Sum(nil)), nil
}

// elements are those of a set as the kernel gives them, sorted.
func (t *table) elements(set string) ([][]byte, error) {
	bodies, err := t.socket.dump(unix.NFT_MSG_GETSETELEM, t.family,
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(t.now.Name + "\x00")},
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")})
	if err != nil {
		return nil, fmt.Errorf("read set %s: %w", set, err)
	}
	var elements [][]byte
	for _, body := range bodies {
		list, err := netlink.NewAttributeDecoder(attribute(body, unix.NFTA_SET_ELEM_LIST_ELEMENTS))
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", set, err)
		}
		for list.Next() {
			elements = append(elements, list.Bytes())
		}
		if err := list.Err(); err != nil {
			return nil, fmt.Errorf("read set %s: %w", set, err)
		}
	}
	slices.SortFunc(elements, bytes.Compare)
	return elements, nil
}
