package kernel

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace that is held open. Sockets stay in theirs;
// /proc/sys/net and new sockets follow the thread, which need not be in ours.
type namespace struct {
	fd       int
	dev, ino uint64
}

const threadNS = "/proc/thread-self/ns/net"

// currentNS holds the calling thread's namespace.
func currentNS() (namespace, error) {
	fd, err := unix.Open(threadNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return namespace{}, fmt.Errorf("open %s: %w", threadNS, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return namespace{}, fmt.Errorf("stat %s: %w", threadNS, err)
	}
	return namespace{fd: fd, dev: st.Dev, ino: st.Ino}, nil
}

func (n namespace) close() error { return unix.Close(n.fd) }

// Inside calls f on a thread in the namespace that the Kernel works in.
func (k *Kernel) Inside(f func() error) error { return k.ns.run(f) }

// run calls f on a thread inside the namespace.
func (n namespace) run(f func() error) error {
	runtime.LockOSThread()
	here, err := currentNS()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = here.close() }() // it was only read
	if here.dev == n.dev && here.ino == n.ino {
		defer runtime.UnlockOSThread()
		return f()
	}
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	result := f()
	if err := unix.Setns(here.fd, unix.CLONE_NEWNET); err != nil {
		// The thread stays locked and ends with its goroutine.
		return fmt.Errorf("leave network namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return result
}
