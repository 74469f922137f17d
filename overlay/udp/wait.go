package udp

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// bell wakes a thread, also one that sleeps: to end, or to share the work.
type bell struct {
	fd   int
	rung atomic.Bool
}

func newBell() (*bell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &bell{fd: fd}, nil
}

func (b *bell) ring() {
	b.rung.Store(true)
	// The counter cannot overflow, so the write cannot fail.
	_, _ = unix.Write(b.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// hush ends the ringing.
func (b *bell) hush() {
	b.rung.Store(false)
	var count [8]byte
	_, _ = unix.Read(b.fd, count[:]) // EAGAIN: it did not ring
}

func (b *bell) close() error { return os.NewSyscallError("close eventfd", unix.Close(b.fd)) }

const (
	minSpin = 20 * time.Microsecond
	maxSpin = 100 * time.Microsecond
	// nearMiss is how soon after falling asleep a packet must come for the
	// next wait to spin longer.
	nearMiss = 500 * time.Microsecond
)

// waiter waits for packets on one or two descriptors. While they follow each other
// closely it has the caller ask again and again for a moment, because falling
// asleep and being woken costs more than that; a device without traffic only
// sleeps.
type waiter struct {
	fds   []unix.PollFd
	spin  time.Duration // how long to ask before sleeping, 0 or minSpin to maxSpin
	since time.Time     // of the first try that found nothing, zero while packets come
}

func newWaiter(b *bell, fds ...int) *waiter {
	w := &waiter{fds: []unix.PollFd{{Fd: int32(b.fd), Events: unix.POLLIN}}}
	for _, fd := range fds {
		w.fds = append(w.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return w
}

// found is called after a try that brought packets.
func (w *waiter) found() { w.since = time.Time{} }

// wait is called after a try that brought none, and returns when another is
// due or the bell rings.
func (w *waiter) wait() error {
	now := time.Now()
	if w.since.IsZero() {
		w.since = now
	}
	if now.Sub(w.since) < w.spin {
		yield()
		return nil
	}
	if err := w.sleep(); err != nil {
		return err
	}
	w.learn(time.Since(w.since))
	w.since = time.Time{}
	return nil
}

// learn sets how long the next wait spins from how long this one took, which
// spinning did not cover.
func (w *waiter) learn(took time.Duration) {
	if took < nearMiss {
		w.spin = min(max(2*took, minSpin), maxSpin)
	} else if w.spin /= 2; w.spin < minSpin {
		w.spin = 0
	}
}

func (w *waiter) sleep() error {
	for {
		_, err := unix.Poll(w.fds, -1)
		if err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
}

// yield lets another thread have the processor, if one wants it.
func yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// awaitRoom sleeps until fd takes more, or the bell rings.
func awaitRoom(fd int, b *bell) error {
	fds := [2]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}, {Fd: int32(b.fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
		return fmt.Errorf("wait for room: %w", err)
	}
	return nil
}
