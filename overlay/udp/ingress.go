package udp

import (
	"encoding/binary"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	inMessages = 32
	// inStride keeps the buffers' starts apart in the processor's cache.
	inStride = 64<<10 + 320
)

// ingress carries packets from the socket to the TUN device.
type ingress struct {
	d     *Device
	merge *merger
	tal   *tally
	cache cache
	limit limiter

	bufs  []byte
	msgs  [inMessages]mmsghdr
	names [inMessages]unix.RawSockaddrInet4
	ctls  [inMessages]control
	iovs  [inMessages]unix.Iovec

	vnet   [vnetSize]byte
	pieces [2 + maxRun]unix.Iovec
	out    *outbox // of ICMP errors
	icmp   [icmpMax]byte
}

func newIngress(d *Device) *ingress {
	g := &ingress{
		d: d, tal: &d.in, bufs: make([]byte, inMessages*inStride),
		out: newOutbox(d.sock, d.stop, &d.errs),
	}
	g.merge = newMerger(g, d.tun.uso)
	for i := range g.msgs {
		g.iovs[i] = iovec(g.buf(i))
		h := &g.msgs[i].hdr
		h.Iov = &g.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&g.names[i]))
		h.Control = (*byte)(unsafe.Pointer(&g.ctls[i]))
		g.reset(i)
	}
	return g
}

func (g *ingress) buf(i int) []byte { return g.bufs[i*inStride:][:maxPacket+1] }

// reset prepares message i for receiving.
func (g *ingress) reset(i int) {
	h := &g.msgs[i].hdr
	h.Namelen = unix.SizeofSockaddrInet4
	h.SetControllen(int(unsafe.Sizeof(control{})))
}

// step carries what waits, at most a batch or, for the sake of its latency, one
// message; and returns how many packets of the wire these were.
func (g *ingress) step(one bool) (packets int, err error) {
	msgs := g.msgs[:]
	if one {
		msgs = msgs[:1]
	}
	n, err := g.d.sock.receive(msgs)
	if n == 0 || err != nil {
		return 0, err
	}
	t := g.d.table.Load()
	for i := range n {
		packets += g.message(t, i)
		g.reset(i)
	}
	g.merge.flush()
	if g.out.n > 0 {
		err = g.out.flush()
		g.d.errs.share()
	}
	g.tal.share()
	return packets, err
}

// message takes the datagrams of message i apart, and returns how many.
func (g *ingress) message(t *Table, i int) (packets int) {
	m := &g.msgs[i]
	b := g.buf(i)[:m.len]
	size := len(b)
	if c := &g.ctls[i]; m.hdr.Controllen > 0 && c.hdr.Level == unix.IPPROTO_UDP && c.hdr.Type == unix.UDP_GRO {
		if n := int(binary.NativeEndian.Uint32(c.data[:])); n > 0 {
			size = n
		}
	}
	host := hostKey(&g.names[i])
	for ; len(b) > 0; packets++ {
		one := b[:min(size, len(b))]
		b = b[len(one):]
		if r, ok := g.packet(t, host, one); !ok {
			g.tal.drop(r)
		}
	}
	return packets
}

// packet routes one datagram's content.
func (g *ingress) packet(t *Table, host uint64, b []byte) (reason, bool) {
	_, total, r, ok := check(b, len(b))
	switch {
	case t == nil:
		return noTable, false
	case r == notIPv4 && t.six.self.IsValid():
		return g.six(t, host, b)
	case !ok:
		return r, false
	}
	p := ipv4(b[:total])
	from := g.cache.find(t, p.src())
	if from == nil || from.host != host {
		if _, known := t.hosts[host]; !known {
			return unknownHost, false
		}
		return wrongSource, false
	}
	if !t.self.contains(p.dst()) {
		return wrongDestination, false
	}
	if p.ttl() <= 1 {
		g.expired(t, from, p)
		return ttlExceeded, false
	}
	p.age()
	g.merge.add(p)
	return 0, true
}

// expired tells the sender, behind its host, that the TTL ran out here.
func (g *ingress) expired(t *Table, from *peer, p ipv4) {
	if g.out.n > 0 || !g.limit.allow(time.Now()) {
		return // one a batch is enough
	}
	if n := (fault{kind: icmpTimeExceeded}).answer(g.icmp[:], p, t.address()); n > 0 {
		g.out.add(from, g.icmp[:n], nil)
	}
}

// one writes a packet as it is. The kernel verifies its checksums.
func (g *ingress) one(p ipv4) { g.whole(p) }

// whole writes a packet of either family.
func (g *ingress) whole(p []byte) {
	g.vnet = [vnetSize]byte{}
	g.pieces[0], g.pieces[1] = iovec(g.vnet[:]), iovec(p)
	g.write(2, 1, len(p))
}

// merged writes a super-packet.
func (g *ingress) merged(f *flow) {
	header, v := f.super()
	v.write(&g.vnet)
	g.pieces[0], g.pieces[1] = iovec(g.vnet[:]), iovec(header)
	for i, b := range f.payloads[:f.parts] {
		g.pieces[2+i] = iovec(b)
	}
	g.write(2+f.parts, f.parts, f.parts*f.headers+f.bytes)
}

func (g *ingress) write(pieces, packets, bytes int) {
	if g.d.tun.write(g.pieces[:pieces]) != nil {
		for range packets {
			g.tal.drop(writeFailed)
		}
		return
	}
	g.tal.carried(packets, bytes)
}
