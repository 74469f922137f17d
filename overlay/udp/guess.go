package udp

import "golang.org/x/sys/unix"

// guess is what the next super-packet will look like, from the last one. It
// is read in pieces with a gap before every segment's payload, so that a right
// guess leaves each segment where its headers only need to be written before
// it. Without a guess a packet is read in one piece.
type guess struct {
	headers, size int // bytes; zero without a guess

	at  int // where iov points to
	n   int // of iov; zero when it must be laid out anew
	iov [2 + 64<<10/minGapped]unix.Iovec
}

// flat ends guessing.
func (g *guess) flat() { g.next(0, 0) }

// next guesses a super-packet.
func (g *guess) next(headers, size int) {
	if size < minGapped {
		headers, size = 0, 0
	}
	if g.headers != headers || g.size != size {
		g.headers, g.size, g.n = headers, size, 0
	}
}

// pieces are where to read a packet to, behind its virtio header.
func (g *guess) pieces(v *[vnetSize]byte, arena []byte, used int) []unix.Iovec {
	if g.n > 0 && g.at == used {
		return g.iov[:g.n]
	}
	g.at, g.n = used, 2
	g.iov[0] = iovec(v[:])
	b := arena[used:]
	if g.size == 0 {
		g.iov[1] = iovec(b[:min(len(b), maxPacket)])
		return g.iov[:g.n]
	}
	step := g.headers + g.size
	g.iov[1] = iovec(b[:step])
	for at, room := step, maxPacket-step; room > 0; at += step {
		g.iov[g.n] = iovec(b[at+g.headers:][:min(g.size, room)])
		g.n++
		room -= g.size
	}
	return g.iov[:g.n]
}

// first is the length of the first piece, in which all headers lie.
func (g *guess) first() int {
	if g.size == 0 {
		return maxPacket
	}
	return g.headers + g.size
}

// join brings a packet of total bytes at the start of b together that was read
// in pieces.
func (g *guess) join(b []byte, total int) {
	if g.size == 0 {
		return
	}
	step := g.headers + g.size
	to := step
	for from := step + g.headers; to < total; from += step {
		to += copy(b[to:total], b[from:from+g.size])
	}
}
