package overlay_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// TestPortAgain: a repeated call is answered again, whatever contradicts a port
// that stands is refused, and neither takes the port away, even with a full
// disk.
func TestPortAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newMemory(), newBoard("192.0.2.1"), t.TempDir())
		n := h.network(t)
		p := port(n)
		if err := h.AddPort(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if err := h.AddPort(t.Context(), p); err != nil {
			t.Errorf("again: %v", err)
		}
		other := p
		other.Endpoint = p.Endpoint[:12] + "000000000000"
		other.Addr, other.MAC = p.Addr.Next(), kernel.MAC{2, 0x42, 10, 5, 1, 3}
		if err := h.AddPort(t.Context(), other); err == nil {
			t.Error("an endpoint whose interfaces have another's names is accepted")
		} else {
			wantText(t, "error", err.Error(), "fedcba987654", p.Addr.String())
		}
		synctest.Wait() // nothing is being saved
		if err := os.Mkdir(filepath.Join(h.dir, "networks.json.tmp"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := h.AddPort(t.Context(), p); err == nil {
			t.Error("nothing could be saved, and no error")
		}
		if a := h.Attachments(); len(a) != 1 || len(a[0].Ports) != 1 {
			t.Errorf("after a repeated call: %+v", a)
		}
	})
}

// TestJoinOnce: a veth pair is made by one pass. Another one that follows before
// Join has answered leaves it alone: the engine may have taken the container's end
// by then. A pair that was refused is made when it is asked for again.
func TestJoinOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("192.0.2.1")
		h := start(t, newMemory(), b, t.TempDir())
		n := h.network(t)
		for i := range 100 {
			p := port(n)
			p.Endpoint = fmt.Sprintf("%012x%s", i, p.Endpoint[12:])
			p.Addr = n.Subnet.Addr()
			for range i + 2 {
				p.Addr = p.Addr.Next()
			}
			if err := h.AddPort(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				b.deny("veth flv"+p.Endpoint[:12], errors.New("no memory"))
				if _, err := h.Join(t.Context(), p.Network, p.Endpoint); err == nil {
					t.Error("a pair that cannot be made was joined")
				}
				b.deny("veth flv"+p.Endpoint[:12], nil)
				b.times()
			}
			if _, err := h.Join(t.Context(), p.Network, p.Endpoint); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for name, times := range b.times() {
			if times != 1 {
				t.Errorf("pair %s was made %d times", name, times)
			}
		}
	})
}
