package udp

import (
	"testing"
	"time"
)

func TestLearn(t *testing.T) {
	const us = time.Microsecond
	var w waiter
	for i, c := range []struct{ took, want time.Duration }{
		{time.Second, 0}, {30 * us, 60 * us}, {5 * us, minSpin}, {200 * us, maxSpin},
		{time.Second, maxSpin / 2}, {time.Second, maxSpin / 4}, {time.Second, 0}, {nearMiss, 0},
	} {
		if w.learn(c.took); w.spin != c.want {
			t.Errorf("wait %d of %s: spin %s, want %s", i, c.took, w.spin, c.want)
		}
	}
}

func TestBellEndsSleep(t *testing.T) {
	s, _, bell := loopback(t)
	bell.ring()
	if err := newWaiter(bell, s.fd).wait(); err != nil || !bell.rung.Load() {
		t.Error(err)
	}
}
