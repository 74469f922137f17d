//go:build lab

package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// beatEvery is the time between two datagrams of a beat.
const beatEvery = 10 * time.Millisecond

// lastBeats is how many follow after a beat is told to end: what has just been
// done shows in them, however fast the machine was at it.
const lastBeats = 10

// settleBeats is how long one that came late is awaited when a later one is back.
const settleBeats = 50

// beat sends numbered datagrams to an echo until it is told to end, and the
// last ones after that. Then it says how many came back.
func beat(args []string) error {
	c, err := knock(args[0])
	if err != nil {
		return err
	}
	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM)
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	back := returns{got: map[uint32]bool{}}
	listening := make(chan struct{})
	go func() {
		back.listen(c)
		close(listening)
	}()
	fmt.Println("ready")
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	sent, left := uint32(0), -1 // how many are left, if that is known
	for left != 0 {
		select {
		case <-done:
			left = lastBeats
		case <-tick.C:
			// An error is that of an earlier one, answered with ICMP.
			_, _ = c.Write(binary.BigEndian.AppendUint32(nil, sent))
			sent++
			if left > 0 {
				left--
			}
		}
	}
	back.settle(sent, tick.C)
	if err := c.SetReadDeadline(time.Now()); err != nil {
		return err
	}
	<-listening
	got := back.got
	gap, longest := 0, 0
	for i := range sent {
		if gap++; got[i] {
			gap = 0
		}
		longest = max(longest, gap)
	}
	fmt.Printf("sent %d received %d gap %d\n", sent, len(got), longest)
	return nil
}

// returns are the numbers that have come back.
type returns struct {
	mu  sync.Mutex
	got map[uint32]bool
}

func (r *returns) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

func (r *returns) has(n uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[n]
}

// settle waits until all that was sent is back, or the last of it and then for
// settleBeats nothing more. A busy machine gets 5 s.
func (r *returns) settle(sent uint32, tick <-chan time.Time) {
	late := time.After(5 * time.Second)
	for before, quiet := 0, 0; quiet < settleBeats && r.count() < int(sent); quiet++ {
		select {
		case <-tick:
		case <-late:
			return
		}
		if now := r.count(); now > before || !r.has(sent-1) {
			before, quiet = now, 0
		}
	}
}

// listen collects numbers until the socket's deadline.
func (r *returns) listen(c *net.UDPConn) {
	b := make([]byte, 16)
	for {
		n, err := c.Read(b)
		if n == 4 {
			r.mu.Lock()
			r.got[binary.BigEndian.Uint32(b)] = true
			r.mu.Unlock()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// heart is a beat under way.
type heart struct {
	*netlab.Proc
	from string
}

// pulse is what became of a beat: datagrams sent and returned, and the longest
// run of lost ones.
type pulse struct{ sent, received, gap int }

func (p pulse) lost() int { return p.sent - p.received }

func (p pulse) String() string {
	return fmt.Sprintf("%d of %d datagrams lost, one every %s, %d in a row", p.lost(), p.sent, beatEvery, p.gap)
}

// pound begins a beat from a container to an address where echo is served.
func pound(t testing.TB, h *netlab.Host, container, to string) *heart {
	t.Helper()
	p, err := h.Start("nsenter", inside(t, h, container, "beat", []string{to})...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	heart := &heart{p, h.Name()}
	wait(t, "the beat from "+container, func() error {
		if !strings.Contains(heart.said(), "ready") {
			return fmt.Errorf("it says %q", heart.said())
		}
		return nil
	})
	return heart
}

func (h *heart) said() string {
	text, err := os.ReadFile(h.Log())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// stop ends the beat and tells what became of it.
func (h *heart) stop(t testing.TB) pulse {
	t.Helper()
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var p pulse
	_, said, _ := strings.Cut(h.said(), "ready\n")
	if _, err := fmt.Sscanf(said, "sent %d received %d gap %d", &p.sent, &p.received, &p.gap); err != nil {
		t.Fatalf("the beat from %s: %v: %s", h.from, err, h.said())
	}
	return p
}

// wait polls for a condition for at most a minute.
func wait(t testing.TB, what string, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}
