package udp

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestProcs: each crew has two places in Go's scheduler beside those of all others.
func TestProcs(t *testing.T) {
	_, far, _, _ := twoHosts(t)
	procs := runtime.GOMAXPROCS(0)
	var crews [2]*crew
	for i := range crews {
		var err error
		if crews[i], err = newCrew(far); err != nil {
			t.Fatal(err)
		}
		if got, want := runtime.GOMAXPROCS(0), procs+2*(i+1); got != want {
			t.Errorf("crew %d: GOMAXPROCS is %d, want %d", i+1, got, want)
		}
	}
	for i, c := range crews {
		if err := c.close(); err != nil {
			t.Error(err)
		}
		if got, want := runtime.GOMAXPROCS(0), procs+2*(1-i); got != want {
			t.Errorf("without crew %d: GOMAXPROCS is %d, want %d", i+1, got, want)
		}
	}
}

// TestCrew brings the second thread in by a run and out by single packets, of
// which none may be lost.
func TestCrew(t *testing.T) {
	near, far, _, to := twoHosts(t)
	c, err := newCrew(far)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, carry := range []func() error{c.first, c.second} {
		wg.Go(func() {
			if err := carry(); err != nil {
				t.Error(err)
			}
		})
	}
	defer func() {
		far.stop.ring()
		wg.Wait()
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}()
	p, b := packet{proto: protoUDP, payload: bytesOf(64)}.make(), make([]byte, maxPacket)
	out := newOutbox(near.sock, near.stop, &near.out)
	sent := uint64(0)
	send := func(n int) {
		t.Helper()
		for range n {
			out.add(near.table.Load().find(p.dst()), p, nil)
		}
		if err := out.flush(); err != nil {
			t.Fatal(err)
		}
		sent += uint64(n)
		eventually(t, func() bool {
			for { // makes room for more
				if _, err := unix.Read(to, b); err != nil {
					break
				}
			}
			return far.Counters().ReceivedPackets == sent
		})
	}
	for range 3 {
		for range 100 {
			if send(2 * busyAt); c.shared.Load() {
				break
			}
		}
		if !c.shared.Load() {
			t.Fatal("the second thread does not help")
		}
		for range 10 * quietAfter {
			if send(1); !c.shared.Load() {
				break
			}
		}
		if c.shared.Load() {
			t.Fatal("the second thread does not leave")
		}
	}
}

// eventually waits for a condition at most half a minute.
func eventually(t testing.TB, yes func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !yes(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("not in half a minute")
		}
	}
}
