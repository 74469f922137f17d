package udp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeTUN is a TUN device whose other end is a socket that the test holds.
func fakeTUN(t testing.TB) (*tun, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	near := &tun{fd: fds[0], tso: true, uso: true}
	t.Cleanup(func() {
		if near.close() != nil || unix.Close(fds[1]) != nil {
			t.Error("close")
		}
	})
	return near, fds[1]
}

// twoHosts are devices without threads that are each other's peers, and the
// other ends of their TUN devices: packets go from 10.5.2.0/24 to 10.5.1.0/24.
func twoHosts(t testing.TB) (near, far *Device, from, to int) {
	t.Helper()
	near, far = &Device{opt: Options{MTU: 1472}}, &Device{opt: Options{MTU: 1472}}
	var atNear, atFar *peer
	near.sock, atNear, near.stop = loopback(t)
	far.sock, atFar, far.stop = loopback(t)
	near.tun, from = fakeTUN(t)
	far.tun, to = fakeTUN(t)
	one, two := netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("10.5.2.0/24")
	near.Set(NewTable(two, []Peer{{Subnet: one, Addr: addrOf(atFar)}}))
	far.Set(NewTable(one, []Peer{{Subnet: two, Addr: addrOf(atNear)}}))
	return near, far, from, to
}

func addrOf(p *peer) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(p.name.Addr), binary.BigEndian.Uint16(portBytes(&p.name)))
}

// steps is the way from one host's TUN device to another's.
type steps struct {
	out      *egress
	in       *ingress
	from, to int
}

// carry takes one packet through both steps.
func (s *steps) carry(t testing.TB, what, got []byte, one bool) []byte {
	if _, err := unix.Write(s.from, what); err != nil {
		t.Fatal(err)
	}
	if n, err := s.out.step(one); n == 0 || err != nil {
		t.Fatal("egress", n, err)
	}
	s.receive(t, one)
	n, err := unix.Read(s.to, got)
	if err != nil {
		t.Fatal(err)
	}
	return got[:n]
}

// receive takes what the other host sent; a kernel that is busy may bring it late.
func (s *steps) receive(t testing.TB, one bool) (packets int) {
	for end := time.Now().Add(30 * time.Second); ; {
		n, err := s.in.step(one)
		if err != nil {
			t.Fatal("ingress", err)
		}
		if n > 0 {
			return n
		}
		if time.Now().After(end) {
			t.Fatal("nothing comes in")
		}
	}
}

// TestSteps carries packets from TUN to TUN: what goes in as a super-packet
// crosses as a run of datagrams and comes out as a super-packet again, and
// nothing is allocated for it.
func TestSteps(t *testing.T) {
	whole, v := superOf(1000, 8000, tcpACK, nil)
	var large [vnetSize]byte
	v.write(&large)
	for name, c := range map[string]struct{ vnet, packet []byte }{
		"super-packet": {large[:], whole},
		"small packet": {make([]byte, vnetSize), packet{proto: protoUDP, payload: bytesOf(64)}.make()},
	} {
		for _, one := range []bool{false, true} {
			near, far, from, to := twoHosts(t)
			s := &steps{newEgress(near), newIngress(far), from, to}
			if !near.sock.segment.Load() || !far.sock.gro {
				t.Fatal("this kernel has no UDP_SEGMENT or UDP_GRO: the test needs Linux 5.0")
			}
			what, b := append(bytes.Clone(c.vnet), c.packet...), make([]byte, maxPacket+vnetSize)
			got := s.carry(t, what, b, one)
			head := vnetSize + ipv4(c.packet).ihl()
			payload := what[len(what)-64:]
			if len(got) != len(what) || got[1] != what[1] || got[vnetSize+8] != 62 || fold(sum(got[vnetSize:head])) != 0xffff ||
				!bytes.HasSuffix(got, payload) {
				t.Fatalf("%s: %d bytes came as %d, headers % x", name, len(what), len(got), got[:min(len(got), 60)])
			}
			if n := testing.AllocsPerRun(100, func() { s.carry(t, what, b, one) }); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	}
}
