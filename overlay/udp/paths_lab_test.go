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

	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// engines starts the backend on both sites.
func (p *pair) engines() (a, b *netlab.Proc) {
	p.Helper()
	return p.a.encapsulate(p.b, "engine", enginePath, DefaultPort), p.b.encapsulate(p.a, "engine", enginePath, DefaultPort)
}

// counters stops an engine and returns what it counted.
func counters(t testing.TB, p *netlab.Proc) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Fatalf("%v: %s", err, logOf(p))
	}
	_, said, _ := strings.Cut(logOf(p), "counters ")
	return said
}

// TestCarry sends datagrams of many sizes and TCP both ways, with the
// underlay's offloads and without.
func TestCarry(t *testing.T) {
	for _, wire := range []bool{false, true} {
		p := newPair(t)
		if wire {
			p.wireSize()
		}
		a, b := p.engines()
		start(t, p.b.inner, "echo", "7000")
		out := run(t, p.a.inner, "check", p.b.addr(enginePath)+":7000")
		if !strings.Contains(out, "all right") {
			t.Errorf("datagrams: %s", out)
		}
		server, err := p.b.inner.Start("iperf3", "-s", "--forceflush")
		if err != nil {
			t.Fatal(err)
		}
		await(t, "iperf3", server, "Server listening")
		for _, more := range []string{"", "-R", "-M 400", "-P 8", "-u -b 200M -l 3000"} {
			// The server may still be busy with the client before.
			sh(t, p.a.inner, `for try in $(seq 100); do
				out=$(iperf3 -c %s -t 1 %s 2>&1) && exit
				case $out in *busy*) sleep 0.1 ;; *) break ;; esac
			done; echo "$out" >&2; exit 1`, p.b.addr(enginePath), more)
		}
		for _, e := range []*netlab.Proc{a, b} {
			said := counters(t, e)
			if _, drops, _ := strings.Cut(said, "Drops:map["); strings.Trim(strings.Split(drops, "not-ipv4")[0], "]} \n") != "" {
				t.Errorf("counters %s", said)
			}
		}
	}
}

// TestAnswers looks at the ICMP errors as a container sees them.
func TestAnswers(t *testing.T) {
	p := newPair(t)
	p.engines()
	ping := func(args string, want ...string) {
		t.Helper()
		out, missing := "", want[0]
		for try := 0; try < 10 && missing != ""; try++ { // an answer may come late where the machine is busy
			out, missing = sh(t, p.a.inner, "ping -n -c 1 -W 1 %s || true", args), ""
			for _, w := range want {
				if !strings.Contains(out, w) {
					missing = w
				}
			}
		}
		if missing != "" {
			t.Errorf("ping %s says %q, want %q", args, out, missing)
		}
	}
	ping("10.2.2.2", "ttl=60") // two kernels and two crossings
	ping("10.2.9.9", "From 10.2.1.0", "Destination Net Unreachable")
	ping("-t 2 10.2.2.2", "From 10.2.1.0", "Time to live exceeded")
	ping("-t 3 10.2.2.2", "From 10.2.2.0", "Time to live exceeded")
	ping("-t 4 10.2.2.2", "Time to live exceeded")
	// A device larger than the engine's MTU, as for a moment when that shrinks.
	sh(t, p.a.host, "ip link set flannel0 mtu 1600")
	sh(t, p.a.inner, "ip link set eth0 mtu 1600; ip route replace 10.2.0.0/16 via 10.2.1.1 src 10.2.1.2 mtu 1600")
	sh(t, p.a.host, "ip link set br0 mtu 1600; ip link set c0 mtu 1600")
	ping("-M do -s 1500 10.2.2.2", "From 10.2.1.0", "mtu = 1472")
	sh(t, p.a.inner, "ip route flush cache; ip route replace 10.2.0.0/16 via 10.2.1.1 src 10.2.1.2 mtu lock 1600")
	ping("-M dont -s 1500 10.2.2.2", "1 received")
	ping("-M dont -s 8000 10.2.2.2", "1 received")
}

// TestRefuses sends what no honest peer sends.
func TestRefuses(t *testing.T) {
	p := newPair(t)
	engine := p.a.encapsulate(p.b, "engine", enginePath, DefaultPort)
	good := packet{src: "10.2.2.2", dst: "10.2.1.2", proto: protoUDP, payload: bytesOf(40)}.make()
	short := append(ipv4{}, good[:30]...)
	for _, c := range []struct {
		port uint16
		p    ipv4
	}{
		{DefaultPort, good},
		{DefaultPort + 1, good},
		{DefaultPort, packet{src: "10.2.3.2", dst: "10.2.1.2"}.make()},
		{DefaultPort, packet{src: "10.2.1.9", dst: "10.2.1.2"}.make()},
		{DefaultPort, packet{src: "10.2.2.2", dst: "10.2.2.3"}.make()},
		{DefaultPort, packet{src: "10.2.2.2", dst: "192.0.2.1"}.make()},
		{DefaultPort, packet{src: "10.2.2.2", dst: "10.2.1.2", ttl: 1}.make()},
		{DefaultPort, short},
		{DefaultPort, ipv4("hello")},
	} {
		err := p.b.host.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(c.port), Addr: p.b.host.Addr().As4()}); err != nil {
				return err
			}
			return unix.Sendto(fd, c.p, 0, &unix.SockaddrInet4{Port: DefaultPort, Addr: p.a.host.Addr().As4()})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	poll(t, func() bool { // nothing is left in the engine's socket
		fields := strings.Fields(sh(t, p.a.host, "ss -Huna sport = :%d", DefaultPort))
		return len(fields) > 1 && fields[1] == "0"
	}, func() string { return "the engine does not empty its socket" })
	said := counters(t, engine)
	for _, want := range []string{"ReceivedPackets:1 ", "unknown-host:1", "wrong-source:2", "wrong-destination:2", "ttl-exceeded:1", "malformed:1"} {
		if !strings.Contains(said, want) {
			t.Errorf("counters %s, want %s", said, want)
		}
	}
}

// TestRestart takes the device over from an engine that was killed.
func TestRestart(t *testing.T) {
	p := newPair(t)
	a, _ := p.engines()
	before := sh(t, p.a.host, "ip -o link show flannel0 | cut -d: -f1; ip addr show flannel0 | grep inet; ip route show dev flannel0")
	pinging, err := p.a.inner.Start("ping", "-n", "-i", "0.01", p.b.addr(enginePath))
	if err != nil {
		t.Fatal(err)
	}
	await(t, "ping", pinging, "icmp_seq=20 ")
	killed := time.Now()
	a.Kill()
	start(t, p.a.host, "engine", "flannel0", netip.AddrPortFrom(p.a.host.Addr(), DefaultPort).String(), "1472", "10.2.1.0/24",
		fmt.Sprintf("10.2.2.0/24=%s:%d", p.b.host.Addr(), DefaultPort))
	gone := time.Since(killed) // as long as a process takes to start
	after := sh(t, p.a.inner, "ping -n -i 0.01 -c 50 %s", p.b.addr(enginePath))
	if !strings.Contains(after, " 0% packet loss") {
		t.Errorf("after the restart:\n%s", after)
	}
	if err := unix.Kill(pinging.Pid(), unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := pinging.Wait(); err != nil {
		t.Fatal(err)
	}
	if after := sh(t, p.a.host, "ip -o link show flannel0 | cut -d: -f1; ip addr show flannel0 | grep inet; ip route show dev flannel0"); after != before {
		t.Errorf("device was %q, is %q", before, after)
	}
	var sent, received int
	_, stats, _ := strings.Cut(logOf(pinging), "statistics ---\n")
	if _, err := fmt.Sscanf(stats, "%d packets transmitted, %d received", &sent, &received); err != nil || gone > 5*time.Second || sent-received > int(gone/(10*time.Millisecond))+20 {
		t.Errorf("%v: %s", err, stats)
	}
	t.Logf("a restart of %s cost %d pings at 10 ms", gone.Round(time.Millisecond), sent-received)
}

// TestIdle measures that an engine that carried traffic does not go on
// spinning.
func TestIdle(t *testing.T) {
	p := newPair(t)
	a, b := p.engines()
	sh(t, p.a.inner, "ping -n -f -c 2000 %s", p.b.addr(enginePath))
	for _, e := range []*netlab.Proc{a, b} {
		before := ticks(t, e.Pid())
		<-time.After(2 * time.Second) // what is measured, not waited for
		if spent := ticks(t, e.Pid()) - before; spent > 10 {
			t.Errorf("%d ticks of 10 ms in two idle seconds; spinning takes 200", spent)
		}
	}
}

// ticks is a process's processor time in hundredths of a second.
func ticks(t testing.TB, pid int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	var user, system int
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return user + system
}
