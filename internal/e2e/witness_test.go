//go:build lab

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// witnessPort is where a witness tells everyone the address it sees them come
// from, over TCP, UDP and SCTP.
const witnessPort = 7008

// patience is how long one answer is waited for.
const patience = 700 * time.Millisecond

// witness answers until it is killed.
func witness([]string) error {
	if _, _, err := openWitness(""); err != nil {
		return err
	}
	return witnessSCTP()
}

// openWitness has a witness for TCP and UDP in this network namespace, at an address
// or, without one, at all of both families, until what it returns is closed.
func openWitness(addr string) (net.Listener, net.PacketConn, error) {
	tcp, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(witnessPort)))
	if err != nil {
		return nil, nil, err
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(addr), Port: witnessPort})
	if err != nil {
		tcp.Close()
		return nil, nil, err
	}
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap())
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 100)
		for {
			_, from, err := udp.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteToUDPAddrPort([]byte(from.Addr().Unmap().String()), from)
		}
	}()
	return tcp, udp, nil
}

// ask asks a witness, as in: ask udp 192.0.2.1:8080.
func ask(args []string) error {
	said, err := askAt(args[0], args[1])
	fmt.Println(said)
	return err
}

func askAt(proto, to string) (string, error) {
	if proto == "sctp" {
		return askSCTP(netip.MustParseAddrPort(to))
	}
	c, err := net.DialTimeout(proto, to, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return askOn(c, proto)
}

// askOn asks on a connection.
func askOn(c net.Conn, proto string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if proto == "udp" {
		if _, err := c.Write([]byte("who am I?")); err != nil {
			return "", err
		}
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// asks has a host ask a witness.
func asks(h *netlab.Host, proto, to string) (said string, err error) {
	doing := h.Do(func() error {
		said, err = askAt(proto, to)
		return nil
	})
	return said, errors.Join(doing, err)
}

// persist asks until there is an answer: on a busy machine one may come late.
func persist(ask func() (string, error)) (said string, err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	said, err = ask()
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); <-tick.C {
		said, err = ask()
	}
	return said, err
}

// sees asks a witness from a host; it must answer that it sees this address.
func sees(t *testing.T, what string, h *netlab.Host, proto, to, want string) {
	t.Helper()
	got, err := persist(func() (string, error) { return asks(h, proto, to) })
	if err != nil || got != want {
		t.Errorf("%s: %s %s from %s: sees %q, want %q; %v", what, proto, to, h.Name(), got, want, err)
	}
}

// hidden asks a witness that must not answer.
func hidden(t *testing.T, what string, h *netlab.Host, proto, to string) {
	t.Helper()
	if got, err := asks(h, proto, to); err == nil {
		t.Errorf("%s: %s %s from %s: sees %q, want no answer", what, proto, to, h.Name(), got)
	}
}

// SCTP, RFC 9260: common header 12 bytes, then an INIT chunk of 20. The kernels
// of the lab need not speak it, only track it, so both sides are made by hand.
const (
	sctpHeader  = 12
	sctpInit    = 1
	sctpInitAck = 2
)

// sctpPacket is a first packet of an association, or its answer.
func sctpPacket(from, to uint16, kind byte, tag uint32) []byte {
	b := make([]byte, sctpHeader+20)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], tag)
	b[sctpHeader] = kind
	binary.BigEndian.PutUint16(b[sctpHeader+2:], 20)
	binary.BigEndian.PutUint32(b[sctpHeader+4:], 7)        // initiate tag
	binary.BigEndian.PutUint32(b[sctpHeader+8:], 1<<16)    // window
	binary.BigEndian.PutUint32(b[sctpHeader+12:], 1<<16|1) // streams
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// openSCTP is a raw socket that gets whole IPv4 packets of SCTP.
func openSCTP() (int, error) {
	return unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
}

// readSCTP returns the next packet's source and payload.
func readSCTP(fd int) (unix.Sockaddr, []byte, error) {
	b := make([]byte, 1500)
	n, from, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return nil, nil, err
	}
	head := int(b[0]&15) * 4
	if n < head+sctpHeader+4 {
		return from, make([]byte, sctpHeader+4), nil
	}
	return from, b[head:n], nil
}

func witnessSCTP() error {
	fd, err := openSCTP()
	if err != nil {
		return err
	}
	for {
		from, p, err := readSCTP(fd)
		if err != nil {
			return err
		}
		if p[sctpHeader] != sctpInit || binary.BigEndian.Uint16(p[2:]) != witnessPort {
			continue
		}
		answer := sctpPacket(witnessPort, binary.BigEndian.Uint16(p), sctpInitAck, 7)
		if err := unix.Sendto(fd, answer, 0, from); err != nil {
			return err
		}
	}
}

// askSCTP says "answered", since an association's second packet has no room for
// the address.
func askSCTP(to netip.AddrPort) (string, error) {
	fd, err := openSCTP()
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return "", err
	}
	const own = 40001
	if err := unix.Sendto(fd, sctpPacket(own, to.Port(), sctpInit, 0), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
		return "", err
	}
	for {
		_, p, err := readSCTP(fd)
		if err != nil {
			return "", err
		}
		if p[sctpHeader] == sctpInitAck && binary.BigEndian.Uint16(p) == to.Port() && binary.BigEndian.Uint16(p[2:]) == own {
			return "answered", nil
		}
	}
}
