package udp

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	arenaSize = 256 << 10
	// readRoom is what one read may need: a super-packet and gaps for the
	// headers of all its segments.
	readRoom = 64<<10 + (64<<10/minGapped)*maxHeader
	// minGapped is the smallest segment that is read with gaps, in bytes of
	// payload; it bounds the number of pieces.
	minGapped = 512
	// flatAfter is how many single packets in a row end a guess.
	flatAfter   = 4
	headerSlots = 2 * maxRun
)

// egress carries packets from the TUN device to the socket.
type egress struct {
	d     *Device
	out   *outbox
	tal   *tally
	cache cache

	arena  []byte
	used   int // bytes at its start that wait in out
	vnet   [vnetSize]byte
	guess  guess
	single int // packets in a row that were not super-packets
	super  super

	headers [headerSlots * maxHeader]byte
	slots   int // used ones of headers
	scratch []byte
	answer  answerer
}

func newEgress(d *Device) *egress {
	return &egress{
		d: d, out: newOutbox(d.sock, d.stop, &d.out), tal: &d.out,
		arena: make([]byte, arenaSize), scratch: make([]byte, 2*(maxPacket+1)),
		answer: answerer{tun: d.tun, tal: &d.out},
	}
}

// step carries what waits, at most a batch or, for the sake of its latency, one
// packet; and returns how many packets of the wire these were.
func (e *egress) step(one bool) (packets int, err error) {
	for {
		n, err := e.read()
		if err != nil {
			return packets, err
		}
		if n == 0 {
			break
		}
		n, err = e.packet(n - vnetSize)
		if packets += n; err != nil {
			return packets, err
		}
		if one || n > 1 || len(e.arena)-e.used < readRoom || !e.out.room() {
			break
		}
	}
	if packets == 0 {
		return 0, nil
	}
	return packets, e.flush()
}

func (e *egress) read() (int, error) {
	return e.d.tun.read(e.guess.pieces(&e.vnet, e.arena, e.used))
}

func (e *egress) flush() error {
	err := e.out.flush()
	e.tal.share()
	e.used, e.slots = 0, 0
	return err
}

// packet routes the packet of n bytes that was read last, and returns how many
// it is on the wire.
func (e *egress) packet(n int) (int, error) {
	v := readVnet(&e.vnet)
	head := e.arena[e.used:][:min(n, e.guess.first())]
	_, total, r, ok := check(head, n)
	t := e.d.table.Load()
	switch {
	case r == notIPv4 && t != nil && t.six.self.IsValid():
		return e.six(t, v, head, n)
	case !ok:
		e.tal.drop(r)
		return 1, nil
	case t == nil:
		e.tal.drop(noTable)
		return 1, nil
	}
	p := ipv4(head[:min(len(head), total)])
	to := e.cache.find(t, p.dst())
	switch {
	case p.ttl() <= 1:
		e.tal.drop(ttlExceeded)
		e.answer.send(t, p, fault{kind: icmpTimeExceeded})
		return 1, nil
	case to == nil:
		e.tal.drop(noRoute)
		e.answer.send(t, p, fault{kind: icmpUnreachable, code: icmpNet})
		return 1, nil
	}
	if v.gso != 0 {
		return e.bulk(to, t, v, p, total, p.df())
	}
	e.alone()
	return 1, e.plain(to, t, v, p, total)
}

// alone ends guessing after a few packets that were not super-packets.
func (e *egress) alone() {
	if e.single++; e.single >= flatAfter {
		e.guess.flat()
	}
}

// plain forwards one packet.
func (e *egress) plain(to *peer, t *Table, v vnet, p ipv4, total int) error {
	if len(p) < total {
		e.guess.join(e.arena[e.used:], total)
		p = ipv4(e.arena[e.used:][:total])
	}
	if total > e.d.opt.MTU && p.df() {
		e.tooBig(t, p)
		return nil
	}
	p.age()
	if v.needsSum && !p.finish(v.sumStart, v.sumOffset) {
		e.tal.drop(malformed)
		return nil
	}
	if total > e.d.opt.MTU {
		return e.fragments(to, p)
	}
	e.out.add(to, p, nil)
	e.used += total
	return nil
}

// bulk forwards a super-packet, of which p is the beginning, as segments, and
// returns how many. With df they are not fragmented.
func (e *egress) bulk(to *peer, t *Table, v vnet, p []byte, total int, df bool) (int, error) {
	s := &e.super
	if !s.parse(p, total, v) {
		e.tal.drop(malformed)
		return 1, nil
	}
	s.age()
	large := s.headers+s.size > e.d.opt.MTU
	if large && df {
		e.tooBig(t, p)
		return 1, nil
	}
	e.single = 0
	guessed := e.guess.size > 0 && e.guess.headers == s.headers && e.guess.size == s.size
	if !guessed || large {
		e.guess.join(e.arena[e.used:], total)
	}
	payload := e.arena[e.used+s.headers:][:s.payload]
	switch {
	case large:
		return s.segments(), e.largeSegments(to, payload)
	case guessed:
		e.gapped(to)
	default:
		if err := e.gathered(to, payload); err != nil {
			return s.segments(), err
		}
	}
	e.guess.next(s.headers, s.size)
	return s.segments(), nil
}

// gapped sends a super-packet that was read with gaps for its headers.
func (e *egress) gapped(to *peer) {
	s := &e.super
	step, n := s.headers+s.size, s.segments()
	b := e.arena[e.used:][:n*s.headers+s.payload]
	for i := range n {
		at := b[i*step : min((i+1)*step, len(b))]
		s.write(at[:s.headers], i, at[s.headers:])
	}
	e.out.addRun(to, b, step, n)
	e.used += len(b)
}

// gathered sends a super-packet from its payload and headers written aside.
func (e *egress) gathered(to *peer, payload []byte) error {
	s := &e.super
	for i := range s.segments() {
		if e.slots == headerSlots || !e.out.room() {
			if err := e.out.flush(); err != nil {
				return err
			}
			e.slots = 0
		}
		header := e.headers[e.slots*maxHeader:][:s.headers]
		e.slots++
		from, end := s.payloadOf(i)
		s.write(header, i, payload[from:end])
		e.out.add(to, header, payload[from:end])
	}
	e.used += s.headers + s.payload
	return nil
}

// largeSegments forwards segments that are larger than the MTU, as happens
// for a moment when the MTU shrinks.
func (e *egress) largeSegments(to *peer, payload []byte) error {
	s := &e.super
	for i := range s.segments() {
		from, end := s.payloadOf(i)
		p := e.scratch[maxPacket+1:][:s.headers+end-from]
		copy(p[s.headers:], payload[from:end])
		s.write(p[:s.headers], i, payload[from:end])
		if err := e.fragments(to, ipv4(p)); err != nil {
			return err
		}
	}
	return nil
}

// fragments forwards a packet in pieces.
func (e *egress) fragments(to *peer, p ipv4) error {
	for from, more := 0, true; more; {
		n, next := fragment(e.scratch[:maxPacket+1], p, e.d.opt.MTU, from)
		if !e.out.room() {
			if err := e.out.flush(); err != nil {
				return err
			}
		}
		e.out.add(to, e.scratch[:n], nil)
		if err := e.out.flush(); err != nil {
			return err
		}
		from, more = next, next > 0
	}
	e.used, e.slots = 0, 0
	return nil
}

func (e *egress) tooBig(t *Table, p []byte) {
	e.tal.drop(tooBig)
	e.answer.send(t, p, fault{kind: icmpUnreachable, code: icmpFragNeeded, mtu: e.d.opt.MTU})
}

// answerer sends ICMP errors to senders on this host.
type answerer struct {
	tun   *tun
	tal   *tally
	limit limiter
	vnet  [vnetSize]byte
	b     [icmpMax]byte
	iov   [2]unix.Iovec
}

func (a *answerer) send(t *Table, p []byte, f fault) {
	var n int
	if p[0]>>4 == 6 {
		n = f.answer6(a.b[:], p, t.six.self.Addr())
	} else {
		n = f.answer(a.b[:], p, t.address())
	}
	if n == 0 || !a.limit.allow(time.Now()) {
		return
	}
	a.iov = [2]unix.Iovec{iovec(a.vnet[:]), iovec(a.b[:n])}
	if a.tun.write(a.iov[:]) != nil {
		a.tal.drop(writeFailed)
	}
}
