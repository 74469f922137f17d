//go:build lab

package udp

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// roleEnv makes this binary, started in a host's network namespace, one of the
// programs that the lab tests need there.
const roleEnv = "UDP_TEST_ROLE"

var roles = map[string]func(args []string) error{
	"engine": engineRole, "naive": naiveRole, "blast": blastRole, "sink": sinkRole, "echo": echoRole, "ask": askRole, "check": checkRole,
}

func TestMain(m *testing.M) {
	if role := roles[os.Getenv(roleEnv)]; role != nil {
		if err := role(os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// peersOf reads SUBNET=HOST:PORT arguments.
func peersOf(args []string) ([]Peer, error) {
	peers := make([]Peer, 0, len(args))
	for _, arg := range args {
		subnet, addr, _ := strings.Cut(arg, "=")
		p, err := netip.ParsePrefix(subnet)
		if err != nil {
			return nil, err
		}
		a, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, err
		}
		peers = append(peers, Peer{Subnet: p, Addr: a})
	}
	return peers, nil
}

// engineRole NAME LOCAL MTU SELF PEER... runs a Device until it is told to end,
// and prints its counters then.
func engineRole(args []string) error {
	mtu, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	d, err := Open(Options{
		Name: args[0], Local: netip.MustParseAddrPort(args[1]), MTU: mtu,
		Log: slog.New(slog.NewTextHandler(os.Stdout, nil)),
	})
	if err != nil {
		return err
	}
	peers, err := peersOf(args[4:])
	if err != nil {
		return err
	}
	d.Set(NewTable(netip.MustParsePrefix(args[3]), peers))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("ready")
	err = d.Run(ctx)
	fmt.Printf("counters %+v\n", d.Counters())
	if ctx.Err() == nil {
		return err
	}
	return d.Close()
}

func dial(addr string) (int, error) {
	to := netip.MustParseAddrPort(addr)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return 0, err
	}
	return fd, unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
}

func listen(port string) (int, error) {
	p, err := strconv.Atoi(port)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20); err != nil {
		return 0, err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 500e3}); err != nil {
		return 0, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrInet4{Port: p})
}

// blastRole ADDR SECONDS sends 64-byte datagrams as fast as it can.
func blastRole(args []string) error {
	fd, err := dial(args[0])
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(args[1], 64)
	if err != nil {
		return err
	}
	payload, sent := make([]byte, 64), 0
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for time.Now().Before(end) {
		for range 64 {
			if _, err := unix.Write(fd, payload); err == nil {
				sent++
			}
		}
	}
	fmt.Println(sent)
	return nil
}

// sinkRole PORT SECONDS counts datagrams for that long from the first, and
// prints the number a second.
func sinkRole(args []string) error {
	fd, err := listen(args[0])
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(args[1], 64)
	if err != nil {
		return err
	}
	s := &socket{fd: fd}
	var msgs [64]mmsghdr
	var iovs [64]unix.Iovec
	for i := range msgs {
		iovs[i] = iovec(make([]byte, 256))
		msgs[i].hdr.Iov = &iovs[i]
		msgs[i].hdr.SetIovlen(1)
	}
	fmt.Println("ready")
	var first, last time.Time
	total := 0
	for wait := 0; wait < 20; {
		n, errno := s.messages(unix.SYS_RECVMMSG, msgs[:1])
		if errno != 0 {
			wait++
			if total > 0 {
				break
			}
			continue
		}
		if n2, err := sinkMore(fd, msgs[:]); err == nil {
			n += n2
		}
		if total == 0 {
			first = time.Now()
		}
		total += n
		if last = time.Now(); last.Sub(first).Seconds() > seconds {
			break
		}
	}
	fmt.Printf("rate %.0f\n", float64(total)/max(last.Sub(first).Seconds(), 0.001))
	return nil
}

// sinkMore takes what else has come.
func sinkMore(fd int, msgs []mmsghdr) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// rawRead and rawWrite are read(2) and write(2) on a descriptor that blocks,
// without a word to Go's scheduler: what takes its threads' processors away
// while they sleep, and is woken to give them back, would be measured as well.
func rawRead(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

func rawWrite(fd int, b []byte) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return errno
}

// calm makes a program of raw system calls of this one: no collector that
// would wait for them, and processors enough for all of them.
func calm() {
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(8)
}

// echoRole PORT returns what comes, by UDP and by TCP.
func echoRole(args []string) error {
	calm()
	fd, err := listen(args[0])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp4", ":"+args[0])
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fd, err := blocking(c)
				if err != nil {
					return
				}
				defer unix.Close(fd)
				b := make([]byte, 1<<16)
				for {
					n, errno := rawRead(fd, b)
					if n <= 0 || errno != 0 {
						return
					}
					if errno := rawWrite(fd, b[:n]); errno != 0 {
						return
					}
				}
			}()
		}
	}()
	fmt.Println("ready")
	b := make([]byte, 1<<16)
	var from unix.RawSockaddrInet4
	for {
		size := uint32(unix.SizeofSockaddrInet4)
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0,
			uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		if errno != 0 {
			continue
		}
		if _, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), n, 0,
			uintptr(unsafe.Pointer(&from)), uintptr(size)); errno != 0 {
			return errno
		}
	}
}

// blocking returns a copy of a connection's descriptor that blocks.
func blocking(c net.Conn) (int, error) {
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		return 0, err
	}
	return fd, unix.SetNonblock(fd, false)
}

// askRole ADDR SECONDS udp|tcp asks an echo and prints the answers' p50 and
// p99 in microseconds.
func askRole(args []string) error {
	calm()
	fd, err := dial(args[0])
	if args[2] == "tcp" {
		var c net.Conn
		if c, err = net.DialTimeout("tcp4", args[0], 5*time.Second); err == nil {
			defer c.Close()
			fd, err = blocking(c)
		}
	}
	if err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200e3}); err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(args[1], 64)
	if err != nil {
		return err
	}
	b, asked := make([]byte, 64), uint32(0)
	once := func() bool {
		asked++
		binary.NativeEndian.PutUint32(b, asked)
		if errno := rawWrite(fd, b); errno != 0 {
			return false
		}
		for {
			if n, errno := rawRead(fd, b); n <= 0 || errno != 0 {
				return false
			}
			if binary.NativeEndian.Uint32(b) == asked { // no late answer
				return true
			}
		}
	}
	took := make([]time.Duration, 0, 1<<20)
	for end := time.Now().Add(time.Duration(seconds * float64(time.Second))); time.Now().Before(end); {
		if start := time.Now(); once() {
			took = append(took, time.Since(start))
		}
	}
	if len(took) == 0 {
		return fmt.Errorf("no answer from %s", args[0])
	}
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Nanoseconds()) / 1e3 }
	fmt.Printf("%.1f %.1f\n", at(.5), at(.99))
	return nil
}

// checkRole ADDR sends datagrams of 1 to 9000 bytes to an echo and compares
// what comes back.
func checkRole(args []string) error {
	fd, err := dial(args[0])
	if err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 500e3}); err != nil {
		return err
	}
	b := make([]byte, 1<<16)
	for size := 1; size <= 9000; size += 1 + size/20 {
		want, ok := bytesOf(size), false
		for range 3 { // a datagram may be lost
			if _, err := unix.Write(fd, want); err != nil {
				return err
			}
			n, err := unix.Read(fd, b)
			for err == nil && n < size && bytes.Equal(b[:n], bytesOf(n)) { // late, of one that was given up
				n, err = unix.Read(fd, b)
			}
			if err == nil {
				ok = bytes.Equal(b[:n], want)
				break
			}
		}
		if !ok {
			return fmt.Errorf("%d bytes came back wrong", size)
		}
	}
	fmt.Println("all right")
	return nil
}
