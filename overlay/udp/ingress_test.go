package udp

import (
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzIngress sends any datagram from the peer's socket: only whole packets
// from the peer's subnet to this host's reach the TUN device.
func FuzzIngress(f *testing.F) {
	good := packet{proto: protoUDP, payload: bytesOf(64)}.make()
	f.Add([]byte(good))
	f.Add([]byte(good[:30]))
	f.Add([]byte(packet{proto: protoTCP, flags: tcpACK, payload: bytesOf(900)}.make()))
	f.Add([]byte{0x45, 0, 0, 20})
	f.Add([]byte{})
	near, far, _, to := twoHosts(f)
	in := newIngress(far)
	peer := near.table.Load().lengths[0].peers
	b := make([]byte, maxPacket+vnetSize)
	f.Fuzz(func(t *testing.T, datagram []byte) {
		if len(datagram) > 60000 {
			return
		}
		for _, p := range peer {
			if err := unix.Sendto(near.sock.fd, datagram, 0, &unix.SockaddrInet4{Addr: p.name.Addr, Port: int(addrOf(p).Port())}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := in.step(false); err != nil {
			t.Fatal(err)
		}
		n, err := unix.Read(to, b)
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		p := ipv4(b[vnetSize:n])
		if _, total, _, ok := check(p, len(p)); !ok || total != len(p) || p.src()>>8 != 0x0a0502 || p.dst()>>8 != 0x0a0501 {
			t.Errorf("% x came as % x", datagram, p)
		}
	})
}
