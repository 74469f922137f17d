//go:build lab

package e2e

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"

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
	Routed   bool   // the way is the one that the routes say
	Tunnel   tunnel // that it travels in; zero for none
}

// tunnel is the outside of a packet between hosts, VXLAN or bare IP in UDP.
type tunnel struct {
	Src, Dst netip.Addr
	Port     int
	VNI      int    // 0 for none
	MAC      string // of the VTEP
}

// rounds is how often every shot is fired, lest one that is lost by chance be
// taken for one that is stopped.
const rounds = 3

// way is how a shot leaves: by the interface that has an address, and past a next
// hop.
type way struct{ dev, via netip.Addr }

// shoot fires shots, given as JSON, each by the way that it names.
func shoot(args []string) (err error) {
	var shots []shot
	if err := json.Unmarshal([]byte(args[0]), &shots); err != nil {
		return err
	}
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	tables, err := open(shots)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ip(tables, "rule del fwmark TABLE table TABLE")) }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range rounds {
		for _, s := range shots {
			if err := s.fire(raw, tables); err != nil {
				return fmt.Errorf("%+v: %w", s, err)
			}
		}
		<-tick.C
	}
	return nil
}

// open makes a routing table for every way, by the mark of the packets that go it.
func open(shots []shot) (map[way]int, error) {
	tables := map[way]int{}
	for _, s := range shots {
		if w := (way{s.Dev, s.Via}); !s.Routed && tables[w] == 0 {
			tables[w] = 100 + len(tables)
		}
	}
	return tables, ip(tables, "rule add fwmark TABLE table TABLE\nroute replace default WAY table TABLE")
}

// ip runs lines of iproute2 for every table, with its number and its way in them.
func ip(tables map[way]int, lines string) error {
	var batch strings.Builder
	for w, table := range tables {
		dev, err := deviceOf(w.dev)
		if err != nil {
			return err
		}
		to := "dev " + dev
		if w.via.IsValid() {
			to = "via " + w.via.String() + " dev " + dev + " onlink"
		}
		fmt.Fprintln(&batch, strings.NewReplacer("TABLE", strconv.Itoa(table), "WAY", to).Replace(lines))
	}
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", batch.String(), err, out)
	}
	return nil
}

// fire sends, by the way that is asked for.
func (s shot) fire(raw int, tables map[way]int) error {
	packet, dst := s.packet(), s.Dst
	if s.Tunnel.Port != 0 {
		var err error
		if packet, err = s.Tunnel.wrap(packet); err != nil {
			return err
		}
		dst = s.Tunnel.Dst
	}
	mark := 0 // of the host's own tables
	if !s.Routed {
		mark = tables[way{s.Dev, s.Via}]
	}
	if err := unix.SetsockoptInt(raw, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
		return err
	}
	return unix.Sendto(raw, packet, 0, &unix.SockaddrInet4{Addr: dst.As4()})
}

// packet is what arrives.
func (s shot) packet() []byte { return datagram(s.Src, s.Dst, catchPort, []byte(s.Mark)) }

// wrap puts a packet into the tunnel: bare, or behind a VXLAN header (RFC 7348) and
// an Ethernet one.
func (t tunnel) wrap(packet []byte) ([]byte, error) {
	if t.VNI != 0 {
		mac, err := net.ParseMAC(t.MAC)
		if err != nil {
			return nil, err
		}
		head := []byte{0x08, 0, 0, 0, byte(t.VNI >> 16), byte(t.VNI >> 8), byte(t.VNI), 0}
		head = append(head, mac...)
		head = append(head, 2, 0, 0, 0, 0, 9) // from anybody
		head = append(head, 0x08, 0x00)       // IPv4
		packet = append(head, packet...)
	}
	return datagram(t.Src, t.Dst, t.Port, packet), nil
}

// datagram is IPv4 and UDP by hand (RFC 791, RFC 768), from and to one port and
// without a UDP checksum.
func datagram(from, to netip.Addr, port int, say []byte) []byte {
	const ipLen, udpLen = 20, 8
	b := make([]byte, ipLen+udpLen, ipLen+udpLen+len(say))
	b[0], b[8], b[9] = 4<<4|ipLen/4, 64, unix.IPPROTO_UDP
	src, dst := from.As4(), to.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(say)))
	sum := uint32(0)
	for i := 0; i < ipLen; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(b[ipLen:], uint16(port))
	binary.BigEndian.PutUint16(b[ipLen+2:], uint16(port))
	binary.BigEndian.PutUint16(b[ipLen+4:], uint16(udpLen+len(say)))
	return append(b, say...)
}

// deviceOf finds the interface that has the address.
func deviceOf(addr netip.Addr) (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			return "", err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr {
				return i.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no interface has the address %s", addr)
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
