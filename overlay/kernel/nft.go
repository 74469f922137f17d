package kernel

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tables is the connection that writes nftables. It is dialled when first
// needed, and again after an error, since answers may be left in it.
type tables struct {
	ns   namespace
	conn *nftables.Conn
	nl   *netlink.Conn
	port atomic.Uint32 // how the kernel's notifications name this connection
}

// answersBuffer holds the kernel's answers to one transaction, in bytes: it
// answers every rule before we read the first.
const answersBuffer = 4 << 20

// begin gives a connection with nothing in flight.
func (t *tables) begin() (*nftables.Conn, error) {
	if t.conn == nil {
		// The library's own way into a namespace asks for CAP_SYS_ADMIN even
		// where the thread is in it already.
		err := t.ns.run(func() (err error) {
			t.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(t.adopt))
			return err
		})
		if err != nil {
			t.conn = nil
			return nil, fmt.Errorf("open nftables socket: %w", err)
		}
	}
	if err := t.nl.SetDeadline(time.Now().Add(socketTimeout)); err != nil {
		return nil, fmt.Errorf("set timeout of nftables socket: %w", err)
	}
	return t.conn, nil
}

// adopt prepares the socket under the connection and learns its port.
func (t *tables) adopt(conn *netlink.Conn) error {
	t.nl = conn
	if err := conn.SetReadBuffer(answersBuffer); err != nil {
		return fmt.Errorf("set buffer of nftables socket: %w", err)
	}
	_ = conn.SetOption(netlink.ExtendedAcknowledge, true) // only adds text to errors
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var name unix.Sockaddr
	var failed error
	if err := raw.Control(func(fd uintptr) { name, failed = unix.Getsockname(int(fd)) }); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("read name of nftables socket: %w", failed)
	}
	if local, ok := name.(*unix.SockaddrNetlink); ok {
		t.port.Store(local.Pid)
	}
	return nil
}

// commit carries out what was added to the connection since begin, all of it
// or nothing.
func (t *tables) commit() error {
	err := t.conn.Flush()
	if err != nil {
		_ = t.close()
	}
	return err
}

func (t *tables) close() error {
	if t.conn == nil {
		return nil
	}
	err := t.conn.CloseLasting()
	t.conn, t.nl = nil, nil
	return err
}

// writeTable replaces our table, or deletes it.
func (k *Kernel) writeTable(want table, remove bool) error {
	conn, err := k.tables.begin()
	if err != nil {
		return err
	}
	ours := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	// Adding what may exist makes deleting it safe.
	conn.AddTable(ours)
	conn.DelTable(ours)
	if !remove {
		conn.AddTable(ours)
		for _, c := range want.chains {
			addChain(conn, ours, c)
		}
	}
	return k.tables.commit()
}

func addChain(conn *nftables.Conn, table *nftables.Table, c baseChain) {
	policy, hook := nftables.ChainPolicyAccept, nftables.ChainHook(c.hook)
	chain := conn.AddChain(&nftables.Chain{
		Name: c.name, Table: table, Type: c.kind,
		Hooknum: &hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(c.priority)), Policy: &policy,
	})
	for _, r := range c.rules {
		conn.AddRule(&nftables.Rule{
			Table: table, Chain: chain, Exprs: r.exprs(),
			UserData: userdata.AppendString(nil, userdata.TypeComment, r.String()),
		})
	}
}

// exprs accepts what the Forward describes. The addresses come first: to
// compare four bytes of the packet costs a tenth of a device's name, so that a
// packet of another network leaves the rule at once.
func (f Forward) exprs() []expr.Any {
	e := append(inPrefix(f.Src, false), inPrefix(f.Dst, true)...)
	for _, p := range []netip.Prefix{f.Src, f.Dst} {
		if p.IsValid() {
			e = append(e, ofFamily(p)...)
			break
		}
	}
	if f.In != "" {
		e = append(e, onDevice(expr.MetaKeyIIFNAME, f.In)...)
	}
	if f.Out != "" {
		e = append(e, onDevice(expr.MetaKeyOIFNAME, f.Out)...)
	}
	return append(e, &expr.Verdict{Kind: expr.VerdictAccept})
}

// exprs counts and drops what is left to or from the bridge.
func (g guard) exprs() []expr.Any {
	key := expr.MetaKeyIIFNAME
	if g.out {
		key = expr.MetaKeyOIFNAME
	}
	return append(onDevice(key, g.link), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}

// exprs counts and drops what is left from the network to itself.
func (c closed) exprs() []expr.Any {
	p := netip.Prefix(c)
	e := append(inPrefix(p, false), inPrefix(p, true)...)
	e = append(e, ofFamily(p)...)
	return append(e, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}

// exprs counts and drops what the Seal describes.
func (s Seal) exprs() []expr.Any {
	e := append(matchDevice(expr.MetaKeyIIFNAME, []byte(s.In)), onDevice(expr.MetaKeyOIFNAME, s.Out)...)
	return append(e, dropPort(s.Port)...)
}

// exprs counts and drops the same where this host is where it leads.
func (l lid) exprs() []expr.Any {
	return append(matchDevice(expr.MetaKeyIIFNAME, []byte(l.In)), dropPort(l.Port)...)
}

// exprs accepts what comes in by the device.
func (u uplink) exprs() []expr.Any {
	return append(onDevice(expr.MetaKeyIIFNAME, string(u)), &expr.Verdict{Kind: expr.VerdictAccept})
}

// dropPort counts and drops what is sent to a UDP port.
func dropPort(number int) []expr.Any { return append(port(UDP, uint16(number)), dropped()...) }

// onDevice matches one device's full name.
func onDevice(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return matchDevice(key, padded)
}

func matchDevice(key expr.MetaKey, name []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
	}
}

func ofFamily(p netip.Prefix) []expr.Any {
	protocol := byte(unix.NFPROTO_IPV4)
	if p.Addr().Is6() {
		protocol = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
	}
}

// inPrefix matches the IP header's source or destination; the zero prefix
// matches everything.
func inPrefix(p netip.Prefix, dst bool) []expr.Any {
	if !p.IsValid() || p.Bits() == 0 {
		return nil
	}
	size := p.Addr().BitLen() / 8
	offset := uint32(12) // of the source in an IPv4 header
	if p.Addr().Is6() {
		offset = 8
	}
	if dst {
		offset += uint32(size)
	}
	mask := make([]byte, size)
	for bit := range p.Bits() {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(size)},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(size), Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// writeAccept puts the two rules at the head of dockerd's chain of one family,
// or removes them, wherever they are.
func (k *Kernel) writeAccept(family string, want bool) error {
	found, err := k.readFilter(family)
	if err != nil {
		return err
	}
	conn, err := k.tables.begin()
	if err != nil {
		return err
	}
	filter := &nftables.Table{Name: "filter", Family: nftables.TableFamily(protocolOf(family))}
	for _, r := range found.rules {
		if r.ours() == "" {
			continue
		}
		old := &nftables.Rule{Table: filter, Chain: &nftables.Chain{Name: r.chain, Table: filter}, Handle: r.handle}
		if err := conn.DelRule(old); err != nil {
			return err
		}
	}
	if home := found.home(); want && home != "" {
		chain := &nftables.Chain{Name: home, Table: filter}
		for _, key := range []expr.MetaKey{expr.MetaKeyOIFNAME, expr.MetaKeyIIFNAME} {
			exprs := append(matchDevice(key, []byte(BridgePrefix)), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
			conn.InsertRule(&nftables.Rule{Table: filter, Chain: chain, Exprs: exprs})
		}
	}
	return k.tables.commit()
}

// families are those of dockerd's filter tables.
var families = []string{"ip", "ip6"}

func protocolOf(family string) byte {
	if family == "ip6" {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}
