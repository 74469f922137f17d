package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	chunk     = 256 << 10 // bytes a write
	smallSize = 64        // bytes of a small datagram
	// slack is how much longer than the window the traffic goes on.
	slack = 50 * time.Millisecond
)

// clientRole stream N|datagrams|responses ADDR SPAN is the sending end, and
// prints what the kind's figures are.
func clientRole(args []string) error {
	plain()
	span, err := time.ParseDuration(args[len(args)-1])
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(args[len(args)-2])
	if err != nil {
		return err
	}
	switch kind := args[0]; kind {
	case "stream":
		count, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return streams(addr, count, span)
	case "datagrams":
		return datagrams(addr, span)
	case "responses":
		return responses(addr, span)
	default:
		return fmt.Errorf("client %q: want stream, datagrams or responses", kind)
	}
}

// streams prints Gbit/s over some connections and CPU seconds per gigabyte.
func streams(addr netip.Addr, count int, span time.Duration) error {
	var conns []int
	for range count {
		fd, err := connectAs(streamConn, addr)
		if err != nil {
			return err
		}
		conns = append(conns, fd)
	}
	got, err := flood(addr, span, conns, chunk)
	if err != nil {
		return err
	}
	for _, fd := range conns {
		if err := finish(fd); err != nil {
			return fmt.Errorf("end a stream to %s: %w", addr, err)
		}
	}
	_, err = fmt.Println(float64(got.Bytes)*8/float64(got.Span), got.Busy.Seconds()/(float64(got.Bytes)/1e9))
	return err
}

// finish ends a connection and waits until all of it has come, so that nothing
// runs on into the next measurement.
func finish(fd int) error {
	defer unix.Close(fd)
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return err
	}
	var buf [1]byte
	_, err := read(fd, buf[:])
	return err
}

// datagrams prints the thousands of small datagrams received a second.
func datagrams(addr netip.Addr, span time.Duration) error {
	fd, err := connect(unix.SOCK_DGRAM, addr)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	got, err := flood(addr, span, []int{fd}, smallSize)
	if err != nil {
		return err
	}
	_, err = fmt.Println(float64(got.Datagrams) / got.Span.Seconds() / 1e3)
	return err
}

// flood writes on every socket as fast as it goes, a thread each, for as long
// as the server's window is open.
func flood(addr netip.Addr, span time.Duration, fds []int, size int) (got received, err error) {
	control, err := connectAs(windowConn, addr)
	if err != nil {
		return got, err
	}
	defer unix.Close(control)
	w := window{Warm: span / 5, Span: span}
	if err := binary.Write(fdConn(control), binary.BigEndian, w); err != nil {
		return got, fmt.Errorf("ask %s for a window: %w", addr, err)
	}
	if _, err := io.ReadFull(fdConn(control), make([]byte, 1)); err != nil {
		return got, fmt.Errorf("wait for the window of %s: %w", addr, err)
	}
	var over atomic.Bool
	defer time.AfterFunc(w.Warm+w.Span+slack, func() { over.Store(true) }).Stop()
	failed := make([]error, len(fds))
	var wg sync.WaitGroup
	for i, fd := range fds {
		wg.Add(1)
		thread(func() {
			defer wg.Done()
			buf := make([]byte, size)
			for !over.Load() {
				if _, err := write(fd, buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
					failed[i] = fmt.Errorf("send to %s: %w", addr, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(failed...); err != nil {
		return got, err
	}
	if err := binary.Read(fdConn(control), binary.BigEndian, &got); err != nil {
		return got, fmt.Errorf("read what %s received: %w", addr, err)
	}
	if got.Bytes+got.Datagrams == 0 {
		return got, fmt.Errorf("%s received nothing in %s: make the machine quiet, or -span longer", addr, got.Span)
	}
	return got, nil
}

// responses sends a byte back and forth and prints the round-trip's median and
// 99th percentile in µs.
func responses(addr netip.Addr, span time.Duration) error {
	fd, err := connectAs(echoConn, addr)
	if err != nil {
		return err
	}
	if err := noDelay(fd); err != nil {
		return err
	}
	conn, buf := fdConn(fd), make([]byte, 1)
	var took []time.Duration
	for end := time.Now().Add(span); ; {
		begin := time.Now()
		if begin.After(end) {
			break
		}
		if _, err := conn.Write(buf); err != nil {
			return fmt.Errorf("ask %s: %w", addr, err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			return fmt.Errorf("hear from %s: %w", addr, err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	at := func(percent int) float64 { return float64(took[(len(took)-1)*percent/100].Nanoseconds()) / 1e3 }
	_, err = fmt.Println(at(50), at(99))
	return err
}
