//go:build lab

package udp

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// Each path between the hosts has a network of its own: host a holds
// 10.N.1.0/24, host b 10.N.2.0/24.
const (
	kernelPath = 1 // VXLAN by hand
	enginePath = 2
	naivePath  = 3
	hostPath   = 0 // no containers: the underlay itself
)

// site is a host and one container on it, which has an address in every path.
type site struct {
	t     testing.TB
	n     int // 1 or 2
	host  *netlab.Host
	inner *netlab.Host
}

// pair is two sites on one wire.
type pair struct {
	testing.TB
	a, b *site
	wire *netlab.Host
}

func newPair(t testing.TB) *pair {
	t.Helper()
	lab, err := netlab.New("", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	p := &pair{TB: t, wire: lab.Wire()}
	for i, s := range []**site{&p.a, &p.b} {
		*s = newSite(t, lab, i+1)
	}
	p.a.connect(p.b)
	p.b.connect(p.a)
	return p
}

func newSite(t testing.TB, lab *netlab.Lab, n int) *site {
	t.Helper()
	s := &site{t: t, n: n}
	var err error
	if s.host, err = lab.AddHost(netlab.HostSpec{Name: fmt.Sprintf("h%d", n)}); err != nil {
		t.Fatal(err)
	}
	if s.inner, err = lab.AddHost(netlab.HostSpec{Name: fmt.Sprintf("c%d", n)}); err != nil {
		t.Fatal(err)
	}
	sh(t, s.inner, "ip link del eth0")
	sh(t, s.host, `
		ip link add br0 type bridge; ip link set br0 up
		ip link add c0 type veth peer name eth0 netns %s
		ip link set c0 master br0 up; ethtool -K br0 gro on >/dev/null
		echo 1 > /proc/sys/net/ipv4/ip_forward`, s.inner.Netns())
	sh(t, s.inner, "ip link set lo up; ip link set eth0 up")
	return s
}

// connect lays the paths to another site, but for the encapsulators.
func (s *site) connect(o *site) {
	s.t.Helper()
	for path := kernelPath; path <= naivePath; path++ {
		mtu := 1472
		if path == kernelPath {
			mtu = 1450
		}
		sh(s.t, s.host, "ip addr add 10.%d.%d.1/24 dev br0", path, s.n)
		sh(s.t, s.inner, "ip addr add 10.%[1]d.%[2]d.2/24 dev eth0; ip route add 10.%[1]d.0.0/16 via 10.%[1]d.%[2]d.1 src 10.%[1]d.%[2]d.2 mtu %[3]d",
			path, s.n, mtu)
	}
	sh(s.t, s.host, `
		ip link add vx type vxlan id 1 dstport 8472 local %s dev eth0 nolearning
		ip link set vx address 02:00:00:00:00:%02d mtu 1450 up
		ip addr add 10.1.%d.0/32 dev vx
		ip neigh add 10.1.%d.0 lladdr 02:00:00:00:00:%02d dev vx nud permanent
		bridge fdb add 02:00:00:00:00:%02d dev vx dst %s self permanent
		ip route add 10.1.%d.0/24 via 10.1.%d.0 dev vx onlink`,
		s.host.Addr(), s.n, s.n, o.n, o.n, o.n, o.host.Addr(), o.n, o.n)
}

// start runs one of this binary's roles and returns when it is ready.
func start(t testing.TB, h *netlab.Host, role string, args ...string) *netlab.Proc {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Start("env", append([]string{roleEnv + "=" + role, exe}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	await(t, role, p, "ready")
	return p
}

// await polls until a process has said something.
func await(t testing.TB, what string, p *netlab.Proc, says string) {
	t.Helper()
	poll(t, func() bool { return strings.Contains(logOf(p), says) }, func() string {
		return fmt.Sprintf("%s does not say %q: %s", what, says, logOf(p))
	})
}

// poll waits for a condition at most half a minute.
func poll(t testing.TB, yes func() bool, complaint func() string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 3000 {
		if yes() {
			return
		}
		<-tick.C
	}
	t.Fatal(complaint())
}

func logOf(p *netlab.Proc) string {
	text, err := os.ReadFile(p.Log())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// run runs one of this binary's roles to its end.
func run(t testing.TB, h *netlab.Host, role string, args ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := h.Exec(ctx, "env", append([]string{roleEnv + "=" + role, exe}, args...)...)
	if err != nil {
		t.Fatalf("%s: %v %s", role, err, out)
	}
	return out
}

func sh(t testing.TB, h *netlab.Host, format string, args ...any) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := h.Exec(ctx, "sh", "-ec", fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// encapsulate starts an encapsulator, engine or naive, towards the other site.
func (s *site) encapsulate(o *site, role string, path, port int) *netlab.Proc {
	s.t.Helper()
	name := fmt.Sprintf("flannel%d", port-DefaultPort)
	args := []string{
		name, netip.AddrPortFrom(s.host.Addr(), uint16(port)).String(), "1472", fmt.Sprintf("10.%d.%d.0/24", path, s.n),
		fmt.Sprintf("10.%d.%d.0/24=%s:%d", path, o.n, o.host.Addr(), port),
	}
	sh(s.t, s.host, "ip tuntap add %[1]s mode tun; ip link set %[1]s mtu 1472 txqueuelen 1000 up", name)
	p := start(s.t, s.host, role, args...)
	sh(s.t, s.host, `ip addr replace 10.%[2]d.%[3]d.0/32 dev %[1]s
		ip route replace 10.%[2]d.0.0/16 dev %[1]s
		echo 1 > /proc/sys/net/ipv4/conf/%[1]s/accept_local`, name, path, s.n)
	return p
}

// addr is the container's address in a path, or the host's own.
func (s *site) addr(path int) string {
	if path == hostPath {
		return s.host.Addr().String()
	}
	return fmt.Sprintf("10.%d.%d.2", path, s.n)
}

// end is where the path's traffic starts or ends.
func (s *site) end(path int) *netlab.Host {
	if path == hostPath {
		return s.host
	}
	return s.inner
}
