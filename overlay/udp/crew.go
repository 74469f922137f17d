package udp

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// busyAt is how many packets, without a step between that brings none,
	// call the second thread.
	busyAt = 32
	// quietAfter is how many packets must come alone for it to leave again.
	quietAfter = 256
)

// crew is the two threads of a device. While packets come one at a time the
// first carries them both ways: it is awake already when the answer comes, and
// the processors are left to those who ask and answer. Under load the second
// takes over the way in.
type crew struct {
	d      *Device
	out    *egress
	in     *ingress    // of the second thread while shared, else of the first
	shared atomic.Bool // set by the first, cleared by the second
	call   *bell       // for the second, when shared was set
	back   *bell       // for the first, when it is cleared
}

func newCrew(d *Device) (*crew, error) {
	call, err := newBell()
	if err != nil {
		return nil, err
	}
	back, err := newBell()
	if err != nil {
		return nil, errors.Join(err, call.close())
	}
	addProcs(2)
	return &crew{d: d, out: newEgress(d), in: newIngress(d), call: call, back: back}, nil
}

func (c *crew) close() error {
	addProcs(-2)
	return errors.Join(c.call.close(), c.back.close())
}

// procs keeps crews that come and go at once from taking one count of places for
// another.
var procs sync.Mutex

// addProcs has Go's scheduler run n more threads at once (GOMAXPROCS), one for
// each of a crew's. A thread that carries packets comes back from its sleep
// thousands of times a second, and would wait each time until another lets go of
// its place. Go does not follow a changed CPU limit of the process' cgroup from
// then on.
func addProcs(n int) {
	procs.Lock()
	defer procs.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
}

// first carries packets until the device's bell rings.
func (c *crew) first() error {
	alone := newWaiter(c.d.stop, c.d.tun.fd, c.d.sock.fd)
	apart := newWaiter(c.d.stop, c.d.tun.fd, c.back.fd)
	for busy := 0; !c.d.stop.rung.Load(); {
		w, both := alone, !c.shared.Load()
		if !both {
			w = apart
		}
		n, err := c.step(both)
		if err != nil {
			return err
		}
		if n == 0 {
			busy = 0
			if err := w.wait(); err != nil {
				return err
			}
			continue
		}
		w.found()
		if !both {
			continue
		}
		if busy += n; busy < busyAt {
			yield() // whom the packet woke may share this processor
			continue
		}
		busy = 0
		c.back.hush()
		c.shared.Store(true)
		c.call.ring()
	}
	return nil
}

// step carries packets out, and in as well if it is to do both.
func (c *crew) step(both bool) (packets int, err error) {
	packets, err = c.out.step(both)
	if !both || err != nil {
		return packets, err
	}
	n, err := c.in.step(true)
	return packets + n, err
}

// second helps when it is called.
func (c *crew) second() error {
	called := newWaiter(c.d.stop, c.call.fd)
	for !c.d.stop.rung.Load() {
		if err := called.sleep(); err != nil {
			return err
		}
		c.call.hush()
		if c.shared.Load() {
			if err := c.help(); err != nil {
				return err
			}
			c.back.ring() // before, so that the first hushes it when it shares again
			c.shared.Store(false)
		}
	}
	return nil
}

// help carries packets in until they come one at a time.
func (c *crew) help() error {
	w := newWaiter(c.d.stop, c.d.sock.fd)
	run, quiet := 0, 0 // packets since the last step that brought none; runs of one
	for quiet < quietAfter && !c.d.stop.rung.Load() {
		n, err := c.in.step(false)
		if err != nil {
			return err
		}
		if n > 0 {
			w.found()
			run += n
			continue
		}
		switch run {
		case 0:
		case 1:
			quiet++
		default:
			quiet = 0
		}
		run = 0
		if err := w.wait(); err != nil {
			return err
		}
	}
	return nil
}
