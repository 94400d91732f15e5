package nft

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ipFamily is where a version of IP keeps things.
type ipFamily struct {
	version     int
	suffix      string
	number      byte   // NFPROTO_*
	etherType   uint16 // linux/if_ether.h
	destination uint32 // where the destination's address begins in the header
	bytes       uint32 // of an address
	portAt      uint32 // the register behind the address in register 1
	targets     string
}

var (
	family4 = ipFamily{4, "4", unix.NFPROTO_IPV4, unix.ETH_P_IP, 16, 4, unix.NFT_REG32_01, targets4Set}
	family6 = ipFamily{6, "6", unix.NFPROTO_IPV6, unix.ETH_P_IPV6, 24, 16, unix.NFT_REG_2, targets6Set}
)

// is matches packets of the family. At a device there is none yet, just what the frame says.
func (f ipFamily) is(table *nftables.Table) []expr.Any {
	key, value := expr.MetaKeyNFPROTO, []byte{f.number}
	if table.Family == nftables.TableFamilyNetdev {
		key, value = expr.MetaKeyPROTOCOL, binary.BigEndian.AppendUint16(nil, f.etherType)
	}
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
}

// toTarget matches packets to targets, of protocols that keep the destination's port in bytes 2 and 3, as TCP, UDP, UDP-Lite,
// SCTP and DCCP do.
func (f ipFamily) toTarget() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.destination, Len: f.bytes},
		&expr.Payload{DestRegister: f.portAt, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: 1, SetName: f.targets},
	}
}

// isProtocol matches packets by what is behind all headers of IP.
func isProtocol(protocol byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
	}
}

// isWorkload matches packets of sockets that were made in a workload at some depth.
func isWorkload(level uint32) []expr.Any {
	return []expr.Any{
		&expr.Socket{Key: expr.SocketKeyCgroupv2, Level: level, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: workloadsSet(level)},
	}
}

// NFT_EXTHDR_OP_IPV4 and NFT_EXTHDR_F_PRESENT, linux/netfilter/nf_tables.h.
const (
	headerOfIPv4  = 2
	headerPresent = 1
)

// Loose and strict source routing, RFC 791 section 3.1; with the bit that copies them into fragments.
const (
	optionLSRR = 131
	optionSSRR = 137
)

func has(op expr.ExthdrOp, kind uint8) []expr.Any {
	return []expr.Any{
		&expr.Exthdr{DestRegister: 1, Type: kind, Len: 1, Flags: headerPresent, Op: op},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
	}
}

// hasOption matches IPv4 packets with an option: with source routing the destination is not what the header says.
func hasOption(option uint8) []expr.Any { return has(headerOfIPv4, option) }

// hasRouting matches IPv6 packets with a routing header.
var hasRouting = has(expr.ExthdrOpIpv6, unix.IPPROTO_ROUTING)

// count counts a packet for a reason.
func count(reason string) []expr.Any {
	return []expr.Any{&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: reason}}
}

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

var drop = []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
