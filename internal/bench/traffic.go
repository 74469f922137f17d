package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// figures are one path's measurements in one round.
type figures struct {
	TCP1 float64 // Gbit/s received, one stream
	TCP4 float64 // Gbit/s received, four streams
	CPU  float64 // CPU seconds of the whole machine per gigabyte, one stream
	UDP  float64 // thousand datagrams of 64 bytes received a second
	P50  float64 // µs of a request and its response of one byte
	P99  float64 // µs
}

const (
	port      = 7000
	chunk     = 256 << 10 // bytes a write
	smallSize = 64        // bytes of a small datagram
)

// measure takes all figures of one path.
func measure(ctx context.Context, p path, span time.Duration) (f figures, err error) {
	bytes, busy, err := stream(ctx, p, 1, span)
	if err != nil {
		return f, err
	}
	f.TCP1 = gigabits(bytes, span)
	f.CPU = busy.Seconds() / (float64(bytes) / 1e9)
	if bytes, _, err = stream(ctx, p, 4, span); err != nil {
		return f, err
	}
	f.TCP4 = gigabits(bytes, span)
	if f.UDP, err = datagrams(ctx, p, span); err != nil {
		return f, err
	}
	f.P50, f.P99, err = responses(ctx, p, span)
	return f, err
}

func gigabits(bytes int64, span time.Duration) float64 {
	return float64(bytes) * 8 / span.Seconds() / 1e9
}

// listenIn opens a TCP socket in a namespace.
func listenIn(ctx context.Context, h *netlab.Host, addr netip.AddrPort) (l net.Listener, err error) {
	err = h.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp4", addr.String())
		return err
	})
	return l, err
}

// stream sends as fast as it goes over some connections and returns the bytes
// received while the time ran, and the CPU time that the machine spent.
func stream(ctx context.Context, p path, count int, span time.Duration) (bytes int64, busy time.Duration, err error) {
	l, err := listenIn(ctx, p.to, netip.AddrPortFrom(p.addr, port))
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	var received atomic.Int64
	var sinks, sources sync.WaitGroup
	conns := make([]net.Conn, 0, 2*count)
	for range count {
		c, err := p.from.DialContext(ctx, "tcp4", l.Addr().String())
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", p.name, err)
		}
		r, err := l.Accept()
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", p.name, err)
		}
		conns = append(conns, c, r)
		sinks.Go(func() {
			buf := make([]byte, chunk)
			for {
				n, err := r.Read(buf)
				received.Add(int64(n))
				if err != nil {
					return // the end of the measurement
				}
			}
		})
		sources.Go(func() {
			buf := make([]byte, chunk)
			for {
				if _, err := c.Write(buf); err != nil {
					return // the end of the measurement
				}
			}
		})
	}
	err = pause(ctx, span/5) // the connections' windows open
	before, failed := busyTime()
	begin := received.Load()
	err = errors.Join(err, failed, pause(ctx, span))
	bytes = received.Load() - begin
	after, failed := busyTime()
	err = errors.Join(err, failed)
	for _, c := range conns {
		err = errors.Join(err, c.Close())
	}
	sources.Wait()
	sinks.Wait()
	return bytes, after - before, err
}

// pause is the length of a measurement.
func pause(ctx context.Context, span time.Duration) error {
	select {
	case <-time.After(span):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// datagrams sends small datagrams as fast as it goes and returns the thousands
// received a second.
func datagrams(ctx context.Context, p path, span time.Duration) (float64, error) {
	var server net.PacketConn
	err := p.to.Do(func() (err error) {
		server, err = new(net.ListenConfig).ListenPacket(ctx, "udp4", netip.AddrPortFrom(p.addr, port).String())
		return err
	})
	if err != nil {
		return 0, err
	}
	client, err := p.from.DialContext(ctx, "udp4", netip.AddrPortFrom(p.addr, port).String())
	if err != nil {
		return 0, errors.Join(err, server.Close())
	}
	var received atomic.Int64
	var both sync.WaitGroup
	both.Go(func() {
		buf := make([]byte, 2*smallSize)
		for {
			if _, _, err := server.ReadFrom(buf); err != nil {
				return // the end of the measurement
			}
			received.Add(1)
		}
	})
	both.Go(func() {
		buf := make([]byte, smallSize)
		for {
			if _, err := client.Write(buf); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	})
	err = pause(ctx, span/5)
	begin := received.Load()
	err = errors.Join(err, pause(ctx, span))
	count := received.Load() - begin
	err = errors.Join(err, client.Close(), server.Close())
	both.Wait()
	return float64(count) / span.Seconds() / 1e3, err
}

// responses sends a byte back and forth and returns the round-trip's median and
// 99th percentile in µs.
func responses(ctx context.Context, p path, span time.Duration) (p50, p99 float64, err error) {
	l, err := listenIn(ctx, p.to, netip.AddrPortFrom(p.addr, port))
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	c, err := p.from.DialContext(ctx, "tcp4", l.Addr().String())
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", p.name, err)
	}
	defer c.Close()
	r, err := l.Accept()
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", p.name, err)
	}
	defer r.Close()
	go func() { _, _ = io.Copy(r, io.LimitReader(r, 1<<40)) }() // ends with the connection
	buf := make([]byte, 1)
	var took []float64
	for end := time.Now().Add(span); time.Now().Before(end); {
		begin := time.Now()
		if _, err := c.Write(buf); err != nil {
			return 0, 0, err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return 0, 0, err
		}
		took = append(took, float64(time.Since(begin).Nanoseconds())/1e3)
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100], ctx.Err()
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
