package overlay_test

import (
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
