package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrSilent means that no answer came in time.
var ErrSilent = errors.New("no answer")

// Pinger sends ICMP echoes (RFC 792, RFC 4443) from one raw socket a family, any
// number at a time.
type Pinger struct {
	four, six *net.IPConn
	noIPv6    error // why there is no six
	id        uint16

	mu      sync.Mutex
	seq     uint16
	waiting map[uint16]chan answerFrom // by sequence number
}

type answerFrom struct {
	addr netip.Addr
	at   time.Time
}

// family is ICMP over one of the two.
type family struct {
	network, any   string // net's
	request, reply byte   // types of echoes
	header         int    // of IP, in bytes
	level          int    // of the socket options
	whole          []int  // those that keep packets whole, and their values
}

// families are ICMP of RFC 792 and of RFC 4443, whose checksum the kernel makes.
var (
	icmp4 = family{"ip4:icmp", "0.0.0.0", 8, 0, 20, unix.IPPROTO_IP, []int{unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE}}
	icmp6 = family{"ip6:ipv6-icmp", "::", 128, 129, 40, unix.IPPROTO_IPV6, []int{unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, unix.IPV6_DONTFRAG, 1}}
)

// familyOf is an address's.
func familyOf(addr netip.Addr) family {
	if addr.Is6() {
		return icmp6
	}
	return icmp4
}

// open opens a socket; with whole set its packets are never fragmented.
func (f family) open(ctx context.Context, whole bool) (*net.IPConn, error) {
	lc := net.ListenConfig{}
	if whole {
		lc.Control = func(_, _ string, raw syscall.RawConn) error {
			var err error
			if failed := raw.Control(func(fd uintptr) {
				for i := 0; i < len(f.whole) && err == nil; i += 2 {
					err = unix.SetsockoptInt(int(fd), f.level, f.whole[i], f.whole[i+1])
				}
			}); failed != nil {
				return failed
			}
			return os.NewSyscallError("setsockopt", err)
		}
	}
	conn, err := lc.ListenPacket(ctx, f.network, f.any)
	if err != nil {
		return nil, fmt.Errorf("open a socket for ICMP: %w", err)
	}
	return conn.(*net.IPConn), nil
}

// NewPinger opens its sockets in the network namespace of the calling thread; it
// needs CAP_NET_RAW. With whole set no packet is ever fragmented, whatever the
// kernel knows of the path. Nothing is answered before Run runs. A kernel without
// IPv6 is no error before IPv6 is asked for.
func NewPinger(ctx context.Context, whole bool) (*Pinger, error) {
	p := &Pinger{id: uint16(rand.Uint32()), waiting: map[uint16]chan answerFrom{}}
	var err error
	if p.four, err = icmp4.open(ctx, whole); err != nil {
		return nil, err
	}
	p.six, p.noIPv6 = icmp6.open(ctx, whole)
	return p, nil
}

// Run takes answers in until ctx ends, and closes the sockets then.
func (p *Pinger) Run(ctx context.Context) error {
	var all sync.WaitGroup
	if p.six != nil {
		all.Go(func() { p.hear(ctx, p.six, icmp6) })
	}
	p.hear(ctx, p.four, icmp4)
	all.Wait()
	return ctx.Err()
}

// hear takes the answers of one family in, and closes its socket when ctx ends.
func (p *Pinger) hear(ctx context.Context, conn *net.IPConn, f family) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	b := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFromIP(b)
		now := time.Now()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		case err != nil || n < 8 || b[0] != f.reply || binary.BigEndian.Uint16(b[4:]) != p.id:
			continue // somebody else's, or an error of an earlier packet
		}
		addr, _ := netip.AddrFromSlice(from.IP)
		p.mu.Lock()
		if c := p.waiting[binary.BigEndian.Uint16(b[6:])]; c != nil {
			select {
			case c <- answerFrom{addr.Unmap(), now}:
			default: // twice
			}
		}
		p.mu.Unlock()
	}
}

// Echo sends one echo of size bytes, its IP header included, and waits for the
// answer: ErrSilent where none comes in time, EMSGSIZE for what is larger than
// the interface allows.
func (p *Pinger) Echo(ctx context.Context, to netip.Addr, size int, patience time.Duration) (time.Duration, error) {
	if !to.IsValid() {
		return 0, errors.New("send an echo: no address")
	}
	f, conn := familyOf(to), p.four
	if to.Is6() {
		if conn = p.six; conn == nil {
			return 0, p.noIPv6
		}
	}
	seq, came, err := p.enter()
	if err != nil {
		return 0, err
	}
	defer p.leave(seq)
	began := time.Now()
	if _, err := conn.WriteToIP(f.echo(p.id, seq, size), &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return 0, fmt.Errorf("send an echo to %s: %w", to, err)
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case a := <-came:
			if a.addr == to {
				return a.at.Sub(began), nil
			}
		case <-late.C:
			return 0, ErrSilent
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// enter takes a sequence number that nobody waits for.
func (p *Pinger) enter() (uint16, chan answerFrom, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 1<<16 {
		return 0, nil, errors.New("65536 echoes are under way")
	}
	for p.seq++; p.waiting[p.seq] != nil; {
		p.seq++
	}
	c := make(chan answerFrom, 1)
	p.waiting[p.seq] = c
	return p.seq, c, nil
}

func (p *Pinger) leave(seq uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, seq)
}

// echo is a request that makes a packet of size bytes.
func (f family) echo(id, seq uint16, size int) []byte {
	b := make([]byte, max(size-f.header, 8))
	b[0] = f.request
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	for i := 8; i < len(b); i++ {
		b[i] = byte(i)
	}
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// checksum is RFC 1071's.
func checksum(b []byte) uint16 {
	var s uint32
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	s = s&0xffff + s>>16
	s = s&0xffff + s>>16
	return ^uint16(s)
}

// Serve opens a Pinger, calls use while it runs, and closes it.
func Serve(ctx context.Context, whole bool, use func(*Pinger) error) error {
	p, err := NewPinger(ctx, whole)
	if err != nil {
		return err
	}
	inner, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.Run(inner) // ends with the context
	}()
	defer func() {
		stop()
		<-done
	}()
	return use(p)
}

// LeastMTU is the smallest path MTU to an address that is looked for, in bytes:
// RFC 791's reassembly buffer, or RFC 8200's minimum.
func LeastMTU(to netip.Addr) int {
	if to.Is6() {
		return 1280
	}
	return 576
}

// PathMTU finds the largest packet that passes, between least and most bytes. ok
// asks whether one of that size does. The result is 0 where not even the
// smallest passes.
func PathMTU(least, most int, ok func(size int) (bool, error)) (int, error) {
	for _, size := range []int{most, least} {
		passes, err := ok(size)
		if err != nil {
			return 0, err
		}
		if passes && size == most {
			return most, nil
		}
		if !passes && size == least {
			return 0, nil
		}
	}
	low, high := least, most // low passes, high does not
	for high-low > 1 {
		size := (low + high) / 2
		passes, err := ok(size)
		if err != nil {
			return 0, err
		}
		if passes {
			low = size
		} else {
			high = size
		}
	}
	return low, nil
}

// Fits asks whether a packet of size bytes passes to an address whole; tries is
// how often it may be lost.
func (p *Pinger) Fits(ctx context.Context, to netip.Addr, size, tries int, patience time.Duration) (bool, error) {
	for range tries {
		_, err := p.Echo(ctx, to, size, patience)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EMSGSIZE):
			return false, nil
		case !errors.Is(err, ErrSilent):
			return false, err
		}
	}
	return false, nil
}
