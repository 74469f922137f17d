package overlay_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/docker-flannel/docker-flannel/overlay"
)

func TestFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
		if _, err := a.Found(t.Context(), overlay.Request{Name: "subnets"}); err == nil || !strings.Contains(err.Error(), "subnets") {
			t.Errorf("a name that flanneld takes for leases: %v", err)
		}
		if _, err := a.Found(t.Context(), overlay.Request{Name: "blue", Backend: "warp"}); err == nil || !strings.Contains(err.Error(), "warp") {
			t.Errorf("an unknown backend: %v", err)
		}
		want := netip.MustParsePrefix("10.77.0.0/16")
		cfg, err := a.Found(t.Context(), overlay.Request{Name: "blue", Subnet: want, Backend: "host-gw"})
		if err != nil || cfg.Network != want || cfg.Backend.Type != "host-gw" || len(store.held()) != 0 {
			t.Errorf("%+v %v, leases %v", cfg, err, store.held())
		}
		if _, err := a.Found(t.Context(), overlay.Request{Name: "blue"}); !errors.Is(err, overlay.ErrExists) || !strings.Contains(err.Error(), "10.77.0.0/16") {
			t.Errorf("again: %v", err)
		}
	})
}
