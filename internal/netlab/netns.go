package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const netnsDir = "/run/netns"

// netns is a named network namespace, as `ip netns` knows them.
type netns struct {
	name string
	file *os.File
}

func newNetns(name string) (*netns, error) {
	ns := &netns{name: name}
	if err := onThread(ns.create); err != nil {
		return nil, errors.Join(fmt.Errorf("make network namespace %s: %w", name, err), ns.remove())
	}
	return ns, nil
}

func (n *netns) path() string { return filepath.Join(netnsDir, n.name) }

func (n *netns) create() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	handle, err := os.OpenFile(n.path(), os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	handle.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := resetRouting(); err != nil {
		return err
	}
	const own = "/proc/thread-self/ns/net"
	if err := unix.Mount(own, n.path(), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	n.file, err = os.Open(own)
	return err
}

// resetRouting turns off forwarding and reverse-path checks, which the thread's new
// namespace has inherited from the machine.
func resetRouting() error {
	for _, name := range []string{"ip_forward", "conf/all/rp_filter", "conf/default/rp_filter"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte("0"), 0); err != nil {
			return err
		}
	}
	return nil
}

func (n *netns) remove() error {
	if n.file != nil {
		n.file.Close()
	}
	return removeNetns(n.path())
}

func removeNetns(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// do runs fn in the namespace, on the caller's own goroutine.
func (n *netns) do(fn func() error) (err error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", n.name, err)
	}
	defer home.Close()
	if err := setns(n.file, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", n.name, err)
	}
	defer func() {
		if back := setns(home, unix.CLONE_NEWNET); back != nil {
			// The goroutine stays locked, so the thread ends with it.
			err = errors.Join(err, fmt.Errorf("leave %s: %w", n.name, back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return fn()
}

func (n *netns) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.do(func() error {
		conn, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// setns enters the namespaces behind file; the file may be closed meanwhile
// without harm.
func setns(file *os.File, flags int) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.Setns(int(fd), flags) }); err != nil {
		return err
	}
	return failed
}

// onThread runs fn on a thread that ends with it, so fn may change namespaces
// and never needs to change back. Never the process's first thread: that one
// outlives its goroutines and is what /proc/self shows.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(fn)
			runtime.UnlockOSThread()
			return
		}
		done <- fn()
	}()
	return <-done
}
