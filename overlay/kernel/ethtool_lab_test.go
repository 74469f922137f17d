//go:build lab

package kernel

import (
	"maps"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTxSum turns a device's transmit checksum offload off and on again, with
// CAP_NET_ADMIN alone, and finds by an audit what others did to it.
func TestTxSum(t *testing.T) {
	h := newHost(t)
	few := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN}}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &few[0]); err != nil {
		t.Fatal(err)
	}
	want := func(sum Offload) State {
		s := State{Links: []Link{{Name: "flannel.1", MAC: mac(1), MTU: 1450, VXLAN: VXLAN{VNI: 1, Port: 8472, Dev: "eth0"}}}}
		s.Links[0].TxSum = sum
		return s
	}
	is := func(when, value string) {
		t.Helper()
		if !strings.Contains(h.sh("ethtool -k flannel.1"), "tx-checksum-ip-generic: "+value) {
			t.Errorf("%s: not %s", when, value)
		}
	}
	h.watch()
	h.apply(want(Off)) // made with it
	is("new device", "off")
	h.quiet()
	h.expect(want(Off))
	h.apply(want(On))
	is("wanted on", "on")
	h.quiet()
	h.apply(want(Off))
	is("wanted off", "off")
	h.quiet()

	h.sh("ethtool -K flannel.1 tx on")
	h.k.Doubt()
	if got := h.apply(want(Off)); !maps.Equal(got.Repaired, map[string]int{"link": 1}) {
		t.Errorf("repaired %v", got.Repaired)
	}
	is("repaired", "off")

	h.apply(want(Kept))
	h.k.Doubt()
	if got := h.apply(want(Kept)); got.Changed != 0 {
		t.Errorf("kept: changed %d", got.Changed)
	}
	is("kept", "off")
}
