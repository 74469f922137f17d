package udp

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// outRun is the longest run that addRun takes: a super-packet's segments
	// of minGapped bytes.
	outRun      = 64 << 10 / minGapped
	outMessages = maxRun + outRun
	outIovecs   = 1024
)

// message is one message of the socket: datagrams to one peer, all of the
// first one's size but the last.
type message struct {
	peer   *peer
	iov    int // index of its first iovec
	iovs   int
	size   int // of the first datagram
	count  int // of datagrams
	bytes  int
	closed bool
}

// outbox collects datagrams and sends them in as few messages as it can.
type outbox struct {
	sock *socket
	bell *bell
	tal  *tally

	n    int // messages
	iovs int // iovecs
	msg  [outMessages]message
	iov  [outIovecs]unix.Iovec
	hdr  [outMessages]mmsghdr
	ctl  [outMessages]control
	one  [outIovecs]unix.Iovec // of a datagram that goes alone
}

func newOutbox(s *socket, b *bell, t *tally) *outbox {
	o := &outbox{sock: s, bell: b, tal: t}
	for i := range o.ctl {
		c := &o.ctl[i]
		c.hdr.Level, c.hdr.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		c.hdr.SetLen(unix.CmsgLen(2))
	}
	return o
}

// room tells whether a run, or one more datagram, surely fits.
func (o *outbox) room() bool {
	return o.n+outRun <= outMessages && o.iovs+outRun <= outIovecs
}

// add appends one datagram made of head and body, which must stay as they are
// until flush. Body may be empty.
func (o *outbox) add(p *peer, head, body []byte) {
	size := len(head) + len(body)
	m := o.open(p, size)
	o.piece(m, head)
	if len(body) > 0 {
		o.piece(m, body)
	}
	m.count++
	m.bytes += size
	m.closed = size < m.size
}

// addRun appends count datagrams that lie in b one behind the other, each of
// size bytes but the last. They go in as few messages of even length as can be.
func (o *outbox) addRun(p *peer, b []byte, size, count int) {
	most := perMessage(o.limit(), size)
	for groups := (count + most - 1) / most; groups > 0; groups-- {
		n := (count + groups - 1) / groups
		part := b[:min(n*size, len(b))]
		b, count = b[len(part):], count-n
		m := o.begin(p, size)
		o.piece(m, part)
		m.count, m.bytes, m.closed = n, len(part), true
	}
}

// perMessage is how many datagrams of size bytes one message takes where the
// kernel takes limit.
func perMessage(limit, size int) int { return max(1, min(limit, maxDatagram/size)) }

func (o *outbox) limit() int {
	if o.sock.segment.Load() {
		return maxRun
	}
	return 1
}

// open returns the message that takes a datagram of that size to p next.
func (o *outbox) open(p *peer, size int) *message {
	if o.n > 0 {
		m := &o.msg[o.n-1]
		if m.peer == p && !m.closed && size <= m.size && m.count < o.limit() && m.bytes+size <= maxDatagram {
			return m
		}
	}
	return o.begin(p, size)
}

func (o *outbox) begin(p *peer, size int) *message {
	m := &o.msg[o.n]
	o.n++
	*m = message{peer: p, iov: o.iovs, size: size}
	return m
}

// piece appends bytes to a message, the last one.
func (o *outbox) piece(m *message, b []byte) {
	if m.iovs > 0 {
		last := &o.iov[o.iovs-1]
		if unsafe.Add(unsafe.Pointer(last.Base), int(last.Len)) == unsafe.Pointer(unsafe.SliceData(b)) {
			last.SetLen(int(last.Len) + len(b))
			return
		}
	}
	o.iov[o.iovs] = iovec(b)
	o.iovs++
	m.iovs++
}

// flush sends everything. Only the end of the socket is an error; messages
// that it refuses are counted.
func (o *outbox) flush() error {
	for i := range o.n {
		o.address(i)
	}
	for at := 0; at < o.n; {
		sent, errno := o.sock.send(o.hdr[at:o.n])
		if errno == 0 {
			for i := range sent {
				o.tal.carried(o.msg[at+i].count, o.msg[at+i].bytes)
			}
			at += sent
			continue
		}
		done, err := o.refused(at, errno)
		if err != nil {
			return err
		}
		if done {
			at++
		}
	}
	o.n, o.iovs = 0, 0
	return nil
}

// address writes message i's header.
func (o *outbox) address(i int) {
	m, h := &o.msg[i], &o.hdr[i].hdr
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&m.peer.name)), unix.SizeofSockaddrInet4
	h.Iov = &o.iov[m.iov]
	h.SetIovlen(m.iovs)
	if m.count == 1 {
		h.Control = nil
		h.SetControllen(0)
		return
	}
	c := &o.ctl[i]
	binary.NativeEndian.PutUint16(c.data[:], uint16(m.size))
	h.Control = (*byte)(unsafe.Pointer(c))
	h.SetControllen(unix.CmsgSpace(2))
}

// refused deals with the first message that the socket did not take, and tells
// whether it is dealt with.
func (o *outbox) refused(i int, errno unix.Errno) (done bool, err error) {
	switch errno { //nolint:exhaustive // of all errnos
	case unix.EINTR:
		return false, nil
	case unix.EAGAIN:
		if o.bell.rung.Load() {
			return true, nil
		}
		return false, awaitRoom(o.sock.fd, o.bell)
	case unix.EBADF, unix.ENOTSOCK:
		return true, errno
	}
	m := &o.msg[i]
	if m.count == 1 {
		o.tal.drop(sendFailed)
		return true, nil
	}
	if errno == unix.EIO || errno == unix.EOPNOTSUPP {
		// The underlay's device cannot checksum what would be split.
		o.sock.segment.Store(false)
	}
	// EINVAL, EMSGSIZE: the path's MTU fell below the datagrams' size, which
	// the kernel mends by fragments, but not in a run.
	return true, o.apart(i)
}

// apart sends the datagrams of message i one by one.
func (o *outbox) apart(i int) error {
	m := &o.msg[i]
	pieces := o.iov[m.iov : m.iov+m.iovs]
	used := 0 // bytes of the first piece
	for left := m.bytes; left > 0; {
		size, n := min(m.size, left), 0
		left -= size
		for want := size; want > 0; n++ {
			have := unsafe.Slice(pieces[0].Base, int(pieces[0].Len))[used:]
			take := min(len(have), want)
			o.one[n] = iovec(have[:take])
			want -= take
			if used += take; take == len(have) {
				pieces, used = pieces[1:], 0
			}
		}
		if err := o.alone(m.peer, n, size); err != nil {
			return err
		}
	}
	return nil
}

// alone sends the datagram in the first n of o.one.
func (o *outbox) alone(p *peer, n, size int) error {
	var msg [1]mmsghdr
	h := &msg[0].hdr
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&p.name)), unix.SizeofSockaddrInet4
	h.Iov = &o.one[0]
	h.SetIovlen(n)
	for {
		_, errno := o.sock.send(msg[:])
		switch {
		case errno == 0:
			o.tal.carried(1, size)
			return nil
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && !o.bell.rung.Load():
			if err := awaitRoom(o.sock.fd, o.bell); err != nil {
				return err
			}
		default:
			o.tal.drop(sendFailed)
			return nil
		}
	}
}
