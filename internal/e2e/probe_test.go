//go:build lab

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// roleEnv has this binary play a role in a container's network, where busybox
// has no tool for it.
const roleEnv = "E2E_ROLE"

const (
	tool     = "/e2e-tool" // this binary on a host
	echoPort = 7007
)

var roles = map[string]func(args []string) error{
	"echo": echo, "sweep": sweep, "pmtu": pmtu, "push": push, "flanneld": flanneld, "beat": beat,
	"witness": witness, "ask": ask,
	"shoot": shoot, "catch": catch,
}

// play plays the role that the environment names, if any.
func play() {
	role := os.Getenv(roleEnv)
	if role == "" {
		return
	}
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// equip copies this binary to a host.
func equip(ctx context.Context, h *netlab.Host) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	file, err := os.Open(exe)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = h.ExecIn(ctx, file, "sh", "-c", "cat >"+tool+" && chmod +x "+tool)
	return err
}

// act plays a role in a container's network to its end and returns what it
// says.
func act(t testing.TB, h *netlab.Host, container, role string, args ...string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), "nsenter", inside(t, h, container, role, args)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// serve plays a role in a container's network until the test ends.
func serve(t testing.TB, h *netlab.Host, container, role string) {
	t.Helper()
	p, err := h.Start("nsenter", inside(t, h, container, role, nil)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
}

func inside(t testing.TB, h *netlab.Host, container, role string, args []string) []string {
	t.Helper()
	pid := docker(t, h, "inspect", "-f", "{{.State.Pid}}", container)
	return append([]string{"-t", pid, "-n", "env", roleEnv + "=" + role, tool}, args...)
}

// echo returns datagrams, and counts what comes over TCP.
func echo([]string) error {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{Port: echoPort})
	if err != nil {
		return err
	}
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{Port: echoPort})
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				n, _ := io.Copy(io.Discard, c)
				fmt.Fprint(c, n)
				c.Close()
			}()
		}
	}()
	b := make([]byte, 1<<16)
	for {
		n, from, err := udp.ReadFrom(b)
		if err != nil {
			return err
		}
		if _, err := udp.WriteTo(b[:n], from); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// knock returns a connected UDP socket on which the other end has answered.
func knock(host string) (*net.UDPConn, error) {
	c, err := net.Dial("udp", net.JoinHostPort(host, strconv.Itoa(echoPort)))
	if err != nil {
		return nil, err
	}
	conn := c.(*net.UDPConn)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); { // until the other end listens
		if err = exchange(conn, []byte("knock")); err == nil {
			return conn, nil
		}
		<-tick.C
	}
	return nil, err
}

// exchange sends a datagram and awaits the same in return.
func exchange(c *net.UDPConn, say []byte) error {
	if _, err := c.Write(say); err != nil {
		return err
	}
	b := make([]byte, 1<<16)
	if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	n, err := c.Read(b)
	if err == nil && !bytes.Equal(b[:n], say) {
		err = fmt.Errorf("%d bytes came back as %d others", len(say), n)
	}
	return err
}

// sweep exchanges datagrams of 1 to 9000 bytes, fragmented where needed.
func sweep(args []string) error {
	c, err := knock(args[0])
	if err != nil {
		return err
	}
	say := make([]byte, 9000)
	for i := range say {
		say[i] = byte(i * 7)
	}
	count := 0
	for size := 1; size <= len(say); size += 1 + size/50 {
		if err := exchange(c, say[:size]); err != nil {
			return fmt.Errorf("datagram of %d bytes: %w", size, err)
		}
		count++
	}
	if err := exchange(c, say); err != nil {
		return fmt.Errorf("datagram of %d bytes: %w", len(say), err)
	}
	fmt.Println(count + 1)
	return nil
}

// pmtu sends datagrams that must not be fragmented until the kernel knows the
// path's MTU, and prints it.
func pmtu(args []string) error {
	c, err := knock(args[0])
	if err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	level, discover, mtu, headers := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_MTU, 28
	if netip.MustParseAddr(args[0]).Is6() {
		level, discover, mtu, headers = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU, 48
	}
	size, path := 0, 0
	var failed error
	err = raw.Control(func(fd uintptr) {
		// The values for both families are the same.
		failed = unix.SetsockoptInt(int(fd), level, discover, unix.IP_PMTUDISC_DO)
		if size, err = unix.GetsockoptInt(int(fd), level, mtu); err != nil {
			failed = errors.Join(failed, err)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	// One that is too large is refused, here or by a router's answer; one that
	// neither comes back nor is refused was lost on the way.
	for range 5 {
		err := exchange(c, make([]byte, size-headers))
		if err == nil || errors.Is(err, unix.EMSGSIZE) {
			break
		}
	}
	err = raw.Control(func(fd uintptr) { path, failed = unix.GetsockoptInt(int(fd), level, mtu) })
	fmt.Println(path)
	return errors.Join(err, failed)
}

// push sends a megabyte over TCP and checks how much has come.
func push(args []string) error {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(args[0], strconv.Itoa(echoPort)), 5*time.Second)
	if err != nil {
		return err
	}
	const total = 1 << 20
	if err := c.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(make([]byte, total)); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	said, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if string(said) != strconv.Itoa(total) {
		return fmt.Errorf("%s of %d bytes came", said, total)
	}
	return nil
}

// flanneld carries packets between the TUN device flannel0 and one peer as stock
// flannel's udp backend does, one by one.
func flanneld(args []string) error {
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	req, err := unix.NewIfreq("flannel0")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(tun, unix.TUNSETIFF, req); err != nil {
		return err
	}
	peer := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(args[1]))
	sock, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(args[0])))
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 2048)
		for {
			if n, _, err := sock.ReadFrom(b); err == nil {
				_, _ = unix.Write(tun, b[:n])
			}
		}
	}()
	b := make([]byte, 2048)
	for {
		n, err := unix.Read(tun, b)
		if err != nil {
			return err
		}
		if _, err := sock.WriteTo(b[:n], peer); err != nil {
			return err
		}
	}
}
