package nft

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// An entry is a workload as a table knows it. Without a port it is denied its targets.
type entry struct {
	id           uint64 // of its cgroup
	level        uint32 // how deep that lies below the root
	port4, port6 uint16 // of its listeners, 0 for none
	canary       bool
}

// A plan is all that a table is to say.
type plan struct {
	targets targets
	entries []entry
	// whole is true where the namespace is a workload's or several workloads' own: everything in it is theirs.
	whole bool
}

// levels are the depths at which there are workloads, the deepest first: the inner one of two is the workload.
func (p plan) levels() []uint32 {
	depths := map[uint32]bool{}
	for _, one := range p.entries {
		depths[one.level] = true
	}
	levels := slices.Sorted(maps.Keys(depths))
	slices.Reverse(levels)
	return levels
}

// canaries are the entries that have rules of their own.
func (p plan) canaries() []entry {
	return slices.DeleteFunc(slices.Clone(p.entries), func(e entry) bool { return !e.canary })
}

// only is the one workload of a namespace that is its own.
func (p plan) only() (entry, bool) {
	if p.whole && len(p.entries) == 1 {
		return p.entries[0], true
	}
	return entry{}, false
}

// Reasons, which are names of counters.
const (
	captured       = "captured"
	canaryDialled  = "canary"
	deniedPacket   = "denied_packet"
	deniedUDP      = "denied_udp"
	deniedProtocol = "denied_protocol"
	deniedHeader   = "denied_header"
	// tampered is counted by the process.
	tampered = "tampered"
)

var (
	denied  = []string{deniedPacket, deniedUDP, deniedProtocol, deniedHeader}
	counted = append([]string{captured, canaryDialled}, denied...)
)

// Priorities of chains; see "Chains" in nft(8). Redirection comes before the translations of others, so that it sees what a
// workload dials and not what becomes of it, and after connection tracking, without which there is none. Judging comes after all.
var (
	redirectPriority = nftables.ChainPriorityRef(-199)
	judgePriority    = nftables.ChainPriorityRef(math.MaxInt32)
)

// names of what a table holds.
const (
	targets4Set   = "targets4"
	targets6Set   = "targets6"
	redirectChain = "redirected" // "redirect" is a word of nft(8)
	outputChain   = "output"
	judgeChain    = "judge"
	forwardChain  = "forward"
)

func workloadsSet(level uint32) string { return fmt.Sprintf("workloads-%d", level) }
func portsMap(version int, level uint32) string {
	return fmt.Sprintf("ports%d-%d", version, level)
}

// A builder prepares a table's content in a transaction.
type builder struct {
	*socket
	table *nftables.Table
	err   error
}

func (b *builder) set(name string, key nftables.SetDatatype, interval bool, elements []nftables.SetElement) {
	b.add(&nftables.Set{Table: b.table, Name: name, KeyType: key, Interval: interval, Concatenation: interval}, elements)
}

// elementsPerMessage keep a message's attributes within their 64 KiB.
const elementsPerMessage = 500

// add makes a set with its elements, in as many messages as it takes.
func (b *builder) add(set *nftables.Set, elements []nftables.SetElement) {
	if b.err == nil {
		b.err = b.AddSet(set, nil)
	}
	b.fill(set, elements)
}

func (b *builder) fill(set *nftables.Set, elements []nftables.SetElement) {
	for chunk := range slices.Chunk(elements, elementsPerMessage) {
		if b.err == nil {
			b.err = b.SetAddElements(set, chunk)
		}
	}
}

func (b *builder) chain(name string) *nftables.Chain {
	return b.AddChain(&nftables.Chain{Table: b.table, Name: name})
}

func (b *builder) hook(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return b.AddChain(&nftables.Chain{Table: b.table, Name: name, Type: kind, Hooknum: hook, Priority: priority})
}

func (b *builder) rule(chain *nftables.Chain, parts ...[]expr.Any) {
	b.AddRule(&nftables.Rule{Table: b.table, Chain: chain, Exprs: slices.Concat(parts...)})
}

// build prepares the whole content of a table of family inet.
func (b *builder) build(p plan, counters map[string]uint64) error {
	b.sets(p)
	b.counters(counters)
	b.redirect(p)
	b.judge(p)
	return b.err
}

// counters prepares counters that go on from some values.
func (b *builder) counters(values map[string]uint64) {
	for _, name := range counted {
		b.AddObj(&nftables.CounterObj{Table: b.table, Name: name, Packets: values[name]})
	}
}

func (b *builder) sets(p plan) {
	of4, of6 := p.targets.elements()
	b.set(targets4Set, targetType4, true, of4)
	b.set(targets6Set, targetType6, true, of6)
	if _, ok := p.only(); ok {
		return
	}
	for _, level := range p.levels() {
		sets := setsOf(b.table, level)
		ids, ports4, ports6 := elementsOf(p.entries, level)
		b.add(sets.ids, ids)
		b.add(sets.ports4, ports4)
		b.add(sets.ports6, ports6)
	}
}

var (
	targetType4 = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	targetType6 = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService)
)

// levelSets are the workloads at one depth: their cgroups, and the ports of those that have listeners.
type levelSets struct{ ids, ports4, ports6 *nftables.Set }

func setsOf(table *nftables.Table, level uint32) levelSets {
	ports := func(version int) *nftables.Set {
		return &nftables.Set{Table: table, Name: portsMap(version, level), IsMap: true, KeyType: nftables.TypeCGroupV2,
			DataType: nftables.TypeInetService, KeyByteOrder: binaryutil.NativeEndian}
	}
	return levelSets{
		ids:    &nftables.Set{Table: table, Name: workloadsSet(level), KeyType: nftables.TypeCGroupV2, KeyByteOrder: binaryutil.NativeEndian},
		ports4: ports(4), ports6: ports(6),
	}
}

// elementsOf are the elements of a level's sets.
func elementsOf(entries []entry, level uint32) (ids, ports4, ports6 []nftables.SetElement) {
	for _, one := range entries {
		if one.level != level {
			continue
		}
		key := one.key()
		ids = append(ids, nftables.SetElement{Key: key})
		if one.canary {
			continue // It has a rule of its own.
		}
		if one.port4 != 0 {
			ports4 = append(ports4, nftables.SetElement{Key: key, Val: binary.BigEndian.AppendUint16(nil, one.port4)})
		}
		if one.port6 != 0 {
			ports6 = append(ports6, nftables.SetElement{Key: key, Val: binary.BigEndian.AppendUint16(nil, one.port6)})
		}
	}
	return ids, ports4, ports6
}

// redirect prepares what redirects. Only the first packet of a connection comes here; the kernel remembers for the others.
func (b *builder) redirect(p plan) {
	base := b.hook(redirectChain, nftables.ChainTypeNAT, nftables.ChainHookOutput, redirectPriority)
	only, alone := p.only()
	for _, family := range []ipFamily{family4, family6} {
		chain := b.chain(redirectChain + family.suffix)
		if alone {
			if port := only.port(family); port != 0 {
				b.rule(chain, count(captured), redirectTo(port))
			}
		} else {
			for _, one := range p.entries {
				if port := one.port(family); one.canary && port != 0 {
					b.rule(chain, []expr.Any{
						&expr.Socket{Key: expr.SocketKeyCgroupv2, Level: one.level, Register: 1},
						&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: one.key()},
					}, count(canaryDialled), redirectTo(port))
				}
			}
			for _, level := range p.levels() {
				b.rule(chain, []expr.Any{
					&expr.Socket{Key: expr.SocketKeyCgroupv2, Level: level, Register: 1},
					&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: portsMap(family.version, level)},
				}, count(captured), []expr.Any{&expr.Redir{RegisterProtoMin: 1}})
				// One without a listener is not the outer one's.
				b.rule(chain, isWorkload(level), []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}})
			}
		}
		b.rule(base, family.is(b.table), isProtocol(unix.IPPROTO_TCP), family.toTarget(), jump(chain.Name))
	}
}

func redirectTo(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)}, &expr.Redir{RegisterProtoMin: 1},
	}
}

// key is a workload in a set.
func (e entry) key() []byte { return binary.NativeEndian.AppendUint64(nil, e.id) }

func (e entry) port(family ipFamily) uint16 {
	if family.version == 4 {
		return e.port4
	}
	return e.port6
}

// judge prepares what refuses and drops all that redirection has left.
func (b *builder) judge(p plan) {
	verdicts := map[string][]expr.Any{
		deniedPacket:   {&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}},
		deniedUDP:      drop,
		deniedProtocol: drop,
		deniedHeader:   drop,
	}
	base := b.hook(outputChain, nftables.ChainTypeFilter, nftables.ChainHookOutput, judgePriority)
	for _, reason := range denied {
		chain := b.chain(reason)
		if p.whole {
			b.rule(chain, count(reason), verdicts[reason])
			continue
		}
		for _, level := range p.levels() {
			b.rule(chain, isWorkload(level), count(reason), verdicts[reason])
		}
	}
	for _, one := range malformed(b.table) {
		b.rule(base, one.match, jump(one.reason))
	}
	// Every packet comes here, and few are for targets: which protocol one has is asked of those.
	for _, family := range []ipFamily{family4, family6} {
		chain := b.chain(judgeChain + family.suffix)
		for _, one := range protocols {
			b.rule(chain, isProtocol(one.protocol), jump(one.reason))
		}
		b.rule(base, family.is(b.table), family.toTarget(), jump(chain.Name))
	}
	if !p.whole {
		return
	}
	// What a namespace within sends through this one, and what somebody makes of a packet after all other chains.
	forward := b.hook(forwardChain, nftables.ChainTypeFilter, nftables.ChainHookPostrouting, judgePriority)
	for _, one := range judged(b.table) {
		b.rule(forward, one.match, count(one.reason), drop)
	}
}

// A judgement is which packets are denied for a reason.
type judgement struct {
	match  []expr.Any
	reason string
}

// malformed are packets whose destination is not what it seems.
func malformed(table *nftables.Table) []judgement {
	return []judgement{
		{slices.Concat(family4.is(table), hasOption(optionLSRR)), deniedHeader},
		{slices.Concat(family4.is(table), hasOption(optionSSRR)), deniedHeader},
		{slices.Concat(family6.is(table), hasRouting), deniedHeader},
	}
}

// protocols are those that keep the destination's port where TCP does, and what one of their packets to a target is denied for.
var protocols = []struct {
	protocol byte
	reason   string
}{
	{unix.IPPROTO_TCP, deniedPacket},
	{unix.IPPROTO_UDP, deniedUDP},
	{unix.IPPROTO_UDPLITE, deniedProtocol},
	{unix.IPPROTO_SCTP, deniedProtocol},
	{unix.IPPROTO_DCCP, deniedProtocol},
}

// judged are all packets that may not leave a workload as they are.
func judged(table *nftables.Table) []judgement {
	list := malformed(table)
	for _, family := range []ipFamily{family4, family6} {
		for _, one := range protocols {
			list = append(list, judgement{slices.Concat(family.is(table), isProtocol(one.protocol), family.toTarget()), one.reason})
		}
	}
	return list
}
