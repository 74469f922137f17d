package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// port is where the server role takes TCP and UDP.
const port = 7000

// The first byte of a TCP connection says what it is.
const (
	streamConn = 's' // what comes is counted
	echoConn   = 'e' // what comes goes back
	windowConn = 'w' // a window is answered with what came in it
)

// window is the time to measure: first the traffic gets going, then it counts.
// It is the server that watches the clock, and says that it has begun to before
// there is traffic, so that no request must get through what is measured.
type window struct{ Warm, Span time.Duration }

// received is what a window saw.
type received struct {
	Span, Busy       time.Duration // Busy is the whole machine's CPU time
	Bytes, Datagrams int64
}

// server is the receiving end. Every socket has a thread of its own and
// blocks, as in a plain program without a runtime's poller.
type server struct{ bytes, datagrams atomic.Int64 }

// serverRole ADDR is the receiving end of traffic to an address.
func serverRole(args []string) error {
	plain()
	addr, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	at := &unix.SockaddrInet4{Port: port, Addr: addr.As4()}
	stream, err := socket(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	if err := unix.Bind(stream, at); err != nil {
		return fmt.Errorf("bind to %s: %w", addr, err)
	}
	if err := unix.Listen(stream, 16); err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	datagrams, err := socket(unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	if err := unix.Bind(datagrams, at); err != nil {
		return fmt.Errorf("bind to %s: %w", addr, err)
	}
	s := &server{}
	thread(func() { s.count(datagrams, &s.datagrams, func(int) int64 { return 1 }) })
	fmt.Println(ready)
	for {
		fd, _, err := unix.Accept(stream)
		if err != nil {
			return fmt.Errorf("accept on %s: %w", addr, err)
		}
		thread(func() { s.serve(fd) })
	}
}

// serve serves one connection to its end.
func (s *server) serve(fd int) {
	defer unix.Close(fd)
	var kind [1]byte
	if _, err := read(fd, kind[:]); err != nil {
		return
	}
	switch kind[0] {
	case streamConn:
		s.count(fd, &s.bytes, func(n int) int64 { return int64(n) })
	case echoConn:
		echo(fd)
	case windowConn:
		if err := s.watch(fd); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// count adds up what comes until the end of the connection.
func (s *server) count(fd int, to *atomic.Int64, of func(n int) int64) {
	buf := make([]byte, chunk)
	for {
		n, err := read(fd, buf)
		if n <= 0 || err != nil {
			return
		}
		to.Add(of(n))
	}
}

func echo(fd int) {
	_ = noDelay(fd) // without it the figures are high, and seen to be
	var buf [1]byte
	for {
		if n, err := read(fd, buf[:]); n <= 0 || err != nil {
			return
		}
		if _, err := write(fd, buf[:]); err != nil {
			return
		}
	}
}

// watch answers one window.
func (s *server) watch(fd int) error {
	conn := fdConn(fd)
	var w window
	if err := binary.Read(conn, binary.BigEndian, &w); err != nil {
		return fmt.Errorf("read the window: %w", err)
	}
	if _, err := conn.Write([]byte{windowConn}); err != nil {
		return fmt.Errorf("answer to a window: %w", err)
	}
	<-time.After(w.Warm)
	begin, before, err := s.now()
	if err != nil {
		return err
	}
	<-time.After(w.Span)
	end, after, err := s.now()
	if err != nil {
		return err
	}
	after.Bytes -= before.Bytes
	after.Datagrams -= before.Datagrams
	after.Busy -= before.Busy
	after.Span = end.Sub(begin)
	return binary.Write(conn, binary.BigEndian, after)
}

func (s *server) now() (time.Time, received, error) {
	busy, err := busyTime()
	return time.Now(), received{Busy: busy, Bytes: s.bytes.Load(), Datagrams: s.datagrams.Load()}, err
}

// busyTime is the CPU time that the machine has spent on anything, from
// proc(5)'s stat: user, nice, system, irq and softirq.
func busyTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture of Linux
	return time.Duration(ticks) * tick, nil
}
