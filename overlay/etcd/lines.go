package etcd

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// lines are a client's connections. A connection from an address that the host
// has no more is dead, and nobody says so: waiting for an answer takes longer
// than connecting anew.
type lines struct {
	mu      sync.Mutex
	open    map[*line]struct{}
	trouble *trouble // forgotten where nobody answers at all
}

type line struct {
	net.Conn
	of *lines
}

func newLines(t *trouble) *lines { return &lines{open: map[*line]struct{}{}, trouble: t} }

// dial connects to a host and port.
func (l *lines) dial(ctx context.Context, addr string) (net.Conn, error) {
	dialer := net.Dialer{Control: giveUpSoon}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		l.trouble.set(nil, false)
		return nil, err
	}
	one := &line{conn, l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[one] = struct{}{}
	return one, nil
}

// giveUpSoon bounds how long sent data may stay without acknowledgement, as gRPC
// does for connections that it dials itself.
func giveUpSoon(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(keepAliveTimeout/time.Millisecond))
	})
	return errors.Join(err, os.NewSyscallError("setsockopt TCP_USER_TIMEOUT", failed))
}

func (one *line) Close() error {
	one.of.mu.Lock()
	delete(one.of.open, one)
	one.of.mu.Unlock()
	return one.Conn.Close()
}

// cut ends every connection; the client makes new ones.
func (l *lines) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for one := range l.open {
		_ = one.Conn.Close() // whoever reads from it learns of it
	}
}

// linesKey finds a client's lines in its context.
type linesKey struct{}

// Moved connects anew after the host's address has changed.
func (s *Store) Moved() {
	if l, ok := linesOf(s.client); ok {
		l.cut()
	}
}

func linesOf(client *clientv3.Client) (*lines, bool) {
	l, ok := client.Ctx().Value(linesKey{}).(*lines)
	return l, ok
}
