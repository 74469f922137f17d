//go:build lab

package kernel

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

// TestVethLife walks a container's cable through what the engine does with it.
func TestVethLife(t *testing.T) {
	h := newHost(t)
	woken := h.watch()
	without, create, plugged := example(2), example(2), example(2)
	without.Veths = nil
	plugged.Veths = settled(plugged).Veths
	create.Veths[0].Segments = 44
	container := h.namespace()
	inside := fmt.Sprintf("nsenter --net=/proc/%d/ns/net ", container)

	h.apply(without)
	if got := h.apply(plugged); got.Changed != 0 {
		t.Errorf("a pair that is not to be created: changed %d", got.Changed)
	}
	if got := h.apply(create); got.Changed != 1 {
		t.Errorf("create changed %d", got.Changed)
	}
	h.expect(create)
	h.quiet()
	for name, want := range map[string]bool{"flp1": true, "flv1": false} {
		if got := h.sh("ip -d link show " + name); strings.Contains(got, "gso_max_segs 44 ") != want {
			t.Errorf("%s, where 44 segments at most is to be %t: %s", name, want, got)
		}
	}

	// The engine takes the other end, renames it, and sets its own MTU.
	h.sh(fmt.Sprintf("ip link set flp1 netns %d", container))
	h.sh(inside + "ip link set flp1 name eth0 mtu 1300 address 02:00:00:00:00:99 up")
	if got := h.apply(plugged); got.Changed != 0 {
		t.Errorf("plugged in: changed %d", got.Changed)
	}
	h.k.Doubt()
	if got := h.apply(plugged); got.Changed != 0 {
		t.Errorf("plugged in and read anew: changed %d", got.Changed)
	}
	h.quiet()
	if got := h.sh(inside + "ip link show eth0"); !strings.Contains(got, "mtu 1300") || !strings.Contains(got, "02:00:00:00:00:99") {
		t.Errorf("the container's end was changed: %s", got)
	}

	// Our end is still ours.
	h.notice(woken, "ip link set flv1 mtu 1400 nomaster")
	if got := h.apply(plugged); got.Changed != 1 || got.Repaired["veth"] != 1 {
		t.Errorf("host side: %+v", got)
	}

	// Leave: the engine moves it back under its old name.
	h.quiet()
	h.sh(inside + fmt.Sprintf("sh -c 'ip link set eth0 down; ip link set eth0 name flp1; ip link set flp1 netns %d'", threadID()))
	h.until("Watch has seen it come back", func() bool {
		h.k.mu.Lock()
		defer h.k.mu.Unlock()
		return h.k.view.veths["flv1"].Peer == "flp1"
	})
	h.apply(plugged)
	h.expect(plugged)
	h.quiet()

	// Join again, with the other end elsewhere: the pair is made anew.
	h.sh(fmt.Sprintf("ip link set flp1 netns %d", container))
	if got := h.apply(create); got.Changed != 1 {
		t.Errorf("remake changed %d", got.Changed)
	}
	h.expect(create)
	h.quiet()

	// The container's namespace dies, and the pair with it.
	h.sh(fmt.Sprintf("ip link set flp1 netns %d", container))
	h.notice(woken, fmt.Sprintf("kill -9 %d", container))
	h.until("the pair is gone", func() bool {
		_, err := net.InterfaceByName("flv1")
		return err != nil
	})
	h.compared()
	if got := h.apply(plugged); got.Changed != 0 || len(h.k.view.veths) != 0 {
		t.Errorf("gone: %+v", got)
	}

	h.apply(create)
	h.apply(without)
	h.expect(without)
	h.quiet()
}

// TestVethMaster moves a pair to another bridge.
func TestVethMaster(t *testing.T) {
	h := newHost(t)
	h.watch()
	want := example(0)
	h.apply(want)
	want.Links = append(slices.Clone(want.Links), Link{Name: "fl-red", MTU: 1400})
	want.Veths = []Veth{want.Veths[0], {Name: "flv2", Peer: "flp2", Master: "fl-red", MTU: 1400, Create: true}}
	want.Veths[0].Master = "fl-red"
	h.apply(want)
	h.quiet()
	if got := h.sh("ip -br link show master fl-red"); strings.Count(got, "\n") != 2 {
		t.Errorf("ports of fl-red:\n%s", got)
	}
	if got := h.apply(want); got.Changed != 0 {
		t.Errorf("second apply changed %d", got.Changed)
	}
}
