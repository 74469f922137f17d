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

// Pinger sends ICMP echoes (RFC 792) from one raw socket, any number at a time.
type Pinger struct {
	conn *net.IPConn
	id   uint16

	mu      sync.Mutex
	seq     uint16
	waiting map[uint16]chan answerFrom // by sequence number
}

type answerFrom struct {
	addr netip.Addr
	at   time.Time
}

// NewPinger opens a socket in the network namespace of the calling thread; it
// needs CAP_NET_RAW. With whole set no packet is ever fragmented, whatever the
// kernel knows of the path. Nothing is answered before Run runs.
func NewPinger(ctx context.Context, whole bool) (*Pinger, error) {
	lc := net.ListenConfig{}
	if whole {
		lc.Control = func(_, _ string, raw syscall.RawConn) error {
			var err error
			if failed := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			}); failed != nil {
				return failed
			}
			return os.NewSyscallError("setsockopt IP_MTU_DISCOVER", err)
		}
	}
	conn, err := lc.ListenPacket(ctx, "ip4:icmp", "0.0.0.0")
	if err != nil {
		return nil, fmt.Errorf("open a socket for ICMP: %w", err)
	}
	return &Pinger{conn: conn.(*net.IPConn), id: uint16(rand.Uint32()), waiting: map[uint16]chan answerFrom{}}, nil
}

// ICMP types of RFC 792.
const (
	echoReply   = 0
	echoRequest = 8
)

// Overhead is what an echo is larger than its payload: the headers of RFC 791
// and RFC 792, in bytes.
const Overhead = 20 + 8

// Run takes answers in until ctx ends, and closes the socket then.
func (p *Pinger) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = p.conn.Close() })()
	b := make([]byte, 1<<16)
	for {
		n, from, err := p.conn.ReadFromIP(b)
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && errors.Is(err, net.ErrClosed):
			return err
		case err != nil || n < 8 || b[0] != echoReply || binary.BigEndian.Uint16(b[4:]) != p.id:
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

// Echo sends one echo of size bytes, its IPv4 header included, and waits for the
// answer: ErrSilent where none comes in time, EMSGSIZE for what is larger than
// the interface allows.
func (p *Pinger) Echo(ctx context.Context, to netip.Addr, size int, patience time.Duration) (time.Duration, error) {
	seq, came, err := p.enter()
	if err != nil {
		return 0, err
	}
	defer p.leave(seq)
	began := time.Now()
	if _, err := p.conn.WriteToIP(echo(p.id, seq, size), &net.IPAddr{IP: to.AsSlice()}); err != nil {
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
func echo(id, seq uint16, size int) []byte {
	b := make([]byte, max(size-20, 8))
	b[0] = echoRequest
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

// minPath is the smallest path MTU that is looked for: RFC 791's reassembly
// buffer.
const minPath = 576

// PathMTU finds the largest packet that passes, between 576 bytes and most. ok
// asks whether one of that size does. The result is 0 where not even the
// smallest passes.
func PathMTU(most int, ok func(size int) (bool, error)) (int, error) {
	for _, size := range []int{most, minPath} {
		passes, err := ok(size)
		if err != nil {
			return 0, err
		}
		if passes && size == most {
			return most, nil
		}
		if !passes && size == minPath {
			return 0, nil
		}
	}
	low, high := minPath, most // low passes, high does not
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
