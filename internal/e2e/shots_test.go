//go:build lab

package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// catchPort is where catch listens.
const catchPort = 7008

// ready is what catch says first.
const ready = "ready"

// shot is one datagram as a container with CAP_NET_ADMIN can make it.
type shot struct {
	Mark     string     // what it says
	Dev      netip.Addr // address on the interface by which it leaves
	Via      netip.Addr // next hop; zero where Dst is taken to be on the wire itself
	Src, Dst netip.Addr
}

// rounds is how often every shot is fired, lest one that is lost by chance be
// taken for one that is stopped.
const rounds = 3

// shoot fires shots, given as JSON, each by the way that it names.
func shoot(args []string) error {
	var shots []shot
	if err := json.Unmarshal([]byte(args[0]), &shots); err != nil {
		return err
	}
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range rounds {
		for _, s := range shots {
			if err := s.fire(raw); err != nil {
				return fmt.Errorf("%+v: %w", s, err)
			}
		}
		<-tick.C
	}
	return nil
}

// fire makes the route and sends.
func (s shot) fire(raw int) error {
	index, err := deviceOf(s.Dev)
	if err != nil {
		return err
	}
	route := netlink.Route{
		Dst:       &net.IPNet{IP: s.Dst.AsSlice(), Mask: net.CIDRMask(32, 32)},
		LinkIndex: index, Scope: netlink.SCOPE_LINK,
	}
	if s.Via.IsValid() {
		route.Gw, route.Flags, route.Scope = s.Via.AsSlice(), int(netlink.FLAG_ONLINK), netlink.SCOPE_UNIVERSE
	}
	if err := netlink.RouteReplace(&route); err != nil {
		return fmt.Errorf("route: %w", err)
	}
	return unix.Sendto(raw, s.packet(), 0, &unix.SockaddrInet4{Addr: s.Dst.As4()})
}

// packet is IPv4 and UDP by hand (RFC 791, RFC 768), without a UDP checksum; the
// kernel adds the header's.
func (s shot) packet() []byte {
	const ipLen, udpLen = 20, 8
	b := make([]byte, ipLen+udpLen, ipLen+udpLen+len(s.Mark))
	b[0], b[8], b[9] = 4<<4|ipLen/4, 64, unix.IPPROTO_UDP
	src, dst := s.Src.As4(), s.Dst.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[ipLen:], catchPort)
	binary.BigEndian.PutUint16(b[ipLen+2:], catchPort)
	binary.BigEndian.PutUint16(b[ipLen+4:], uint16(udpLen+len(s.Mark)))
	b = append(b, s.Mark...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// deviceOf finds the interface that has the address.
func deviceOf(addr netip.Addr) (int, error) {
	all, err := net.Interfaces()
	if err != nil {
		return 0, err
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			return 0, err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr {
				return i.Index, nil
			}
		}
	}
	return 0, fmt.Errorf("no interface has the address %s", addr)
}

// catch prints every mark that comes, once.
func catch([]string) error {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: catchPort})
	if err != nil {
		return err
	}
	fmt.Println(ready)
	seen := map[string]bool{}
	b := make([]byte, 1<<11)
	for {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		if mark := string(b[:n]); !seen[mark] {
			seen[mark] = true
			if _, err := fmt.Println(mark); err != nil {
				return err
			}
		}
	}
}
