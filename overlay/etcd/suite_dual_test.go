package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/docker-flannel/docker-flannel/overlay"
)

const dualConfig = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`

// dualOf is a claim of host i with IPv6.
func dualOf(i int) overlay.Claim {
	c := claimOf(i)
	c.IPv6 = true
	c.PublicIPv6 = netip.MustParseAddr(fmt.Sprintf("fd00:c0::%x", i))
	c.BackendV6Data = fmt.Appendf(nil, `{"VNI":1,"VtepMAC":"02:00:00:06:%02x:%02x"}`, byte(i>>8), byte(i))
	return c
}

// Both subnets are in one key, in stock flannel's layout, and stay the host's.
func testDualStack(t *testing.T, w *world) {
	w.configure(t, dualConfig)
	c := dualOf(1)
	c.Prefer, c.PreferIPv6 = subnet("10.5.9.0/24"), subnet("fd00:5:0:4b::/64")
	first := w.claim(t, c)
	const key = "/subnets/10.5.9.0-24&fd00:5:0:4b::-64"
	got, leased := w.value(t, key)
	want := `{"PublicIP":"192.168.0.1","PublicIPv6":"fd00:c0::1","BackendType":"vxlan",` +
		`"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:06:00:01"}}`
	if got != want || !leased {
		t.Errorf("value %s, leased %v", got, leased)
	}
	before := w.modified(t, key)
	if l := w.claim(t, dualOf(1)); l.Subnet != first.Subnet || l.IPv6Subnet != first.IPv6Subnet {
		t.Errorf("moved to %+v", l)
	}
	if w.modified(t, key) != before {
		t.Error("the key was written although nothing changed")
	}
	moved := dualOf(1)
	moved.PublicIPv6 = netip.MustParseAddr("fd00:c0::99")
	w.claim(t, moved)
	if got, _ := w.value(t, key); !strings.Contains(got, `"PublicIPv6":"fd00:c0::99"`) {
		t.Errorf("value %s", got)
	}
	// The IPv6 subnet of another host is nobody's to take; a fresh one has the
	// IPv4 subnet's number.
	c = dualOf(2)
	c.Prefer, c.PreferIPv6 = subnet("10.5.32.0/24"), first.IPv6Subnet
	second := w.claim(t, c)
	if second.Subnet != c.Prefer || second.IPv6Subnet != subnet("fd00:5:0:20::/64") {
		t.Errorf("lease %+v", second)
	}
	if err := w.store.Keep(t.Context(), "", second); err != nil {
		t.Error(err)
	}
	if err := w.store.Release(t.Context(), "", second); err != nil {
		t.Error(err)
	}
	if err := w.store.Keep(t.Context(), "", second); !errors.Is(err, overlay.ErrLeaseLost) {
		t.Errorf("after Release: %v", err)
	}
	w.checkLeases(t)
}

// A pair that containers use is claimed back as it was, or not at all.
func testDualStackMust(t *testing.T, w *world) {
	w.configure(t, dualConfig)
	c := dualOf(1)
	c.Prefer, c.Must, c.PreferIPv6, c.MustIPv6 = subnet("10.5.9.0/24"), true, subnet("fd00:5:0:4b::/64"), true
	for range 2 {
		if l := w.claim(t, c); l.Subnet != c.Prefer || l.IPv6Subnet != c.PreferIPv6 {
			t.Fatalf("lease %+v", l)
		}
	}
	for _, taken := range []struct{ prefer, ipv6, says string }{
		{"10.5.9.0/24", "fd00:5:0:4c::/64", "10.5.9.0/24 is leased to host 192.168.0.1"},
		{"10.5.10.0/24", "fd00:5:0:4b::/64", "fd00:5:0:4b::/64 is leased to host 192.168.0.1"},
	} {
		c := dualOf(2)
		c.Prefer, c.Must, c.PreferIPv6, c.MustIPv6 = subnet(taken.prefer), true, subnet(taken.ipv6), true
		_, err := w.store.Claim(t.Context(), "", c)
		if !errors.As(err, new(*overlay.TakenError)) || !strings.Contains(err.Error(), taken.says) {
			t.Errorf("%s and %s: %v", taken.prefer, taken.ipv6, err)
		}
	}
	w.checkLeases(t)
}

// A host that gets IPv6, or loses it, keeps its IPv4 subnet.
func testDualStackChange(t *testing.T, w *world) {
	w.configure(t, dualConfig)
	four := w.claim(t, claimOf(1))
	if four.IPv6Subnet.IsValid() {
		t.Fatalf("lease %+v without IPv6 in the claim", four)
	}
	gains := dualOf(1)
	gains.Prefer = four.Subnet
	both := w.claim(t, gains)
	if both.Subnet != four.Subnet || !both.IPv6Subnet.IsValid() {
		t.Errorf("lease %+v after %+v", both, four)
	}
	loses := claimOf(1)
	loses.Prefer = four.Subnet
	if l := w.claim(t, loses); l.Subnet != four.Subnet || l.IPv6Subnet.IsValid() {
		t.Errorf("lease %+v after %+v", l, both)
	}
	// What containers use is claimed back where something wrote a lease without
	// IPv6 in its place.
	gains.Must, gains.PreferIPv6, gains.MustIPv6 = true, both.IPv6Subnet, true
	if l := w.claim(t, gains); l.Subnet != four.Subnet || l.IPv6Subnet != both.IPv6Subnet {
		t.Errorf("lease %+v", l)
	}
	if _, err := w.client.Put(t.Context(), w.prefix+"/config", `{"Network":"10.5.0.0/16"}`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Claim(t.Context(), "", dualOf(2)); !errors.Is(err, overlay.ErrNoIPv6) {
		t.Errorf("IPv6 on a network without: %v", err)
	}
	w.checkLeases(t)
}

// Hosts that want the same IPv6 subnet at one moment get different ones.
func testDualStackAtOnce(t *testing.T, w *world) {
	w.configure(t, dualConfig)
	const n = 20
	got := make([]overlay.Lease, n)
	stores := make([]*Store, n)
	for i := range stores {
		stores[i] = w.newStore(t)
	}
	var all sync.WaitGroup
	for i := range got {
		all.Go(func() {
			c := dualOf(i + 1)
			c.Prefer, c.PreferIPv6 = subnet(fmt.Sprintf("10.5.%d.0/24", i+1)), subnet("fd00:5:0:4b::/64")
			var err error
			if got[i], err = stores[i].Claim(t.Context(), "", c); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	seen := map[netip.Prefix]bool{}
	wanted := 0
	for _, l := range got {
		if seen[l.Subnet] || seen[l.IPv6Subnet] {
			t.Errorf("%s or %s given twice", l.Subnet, l.IPv6Subnet)
		}
		seen[l.Subnet], seen[l.IPv6Subnet] = true, true
		if l.IPv6Subnet == subnet("fd00:5:0:4b::/64") {
			wanted++
		}
	}
	if wanted != 1 {
		t.Errorf("%d hosts have the subnet that all preferred", wanted)
	}
	w.checkLeases(t)
}

func TestPickIPv6(t *testing.T) {
	cfg, err := overlay.ParseConfig([]byte(`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/60","IPv6SubnetLen":64}`))
	if err != nil {
		t.Fatal(err)
	}
	if n := cfg.CountIPv6(); n != 15 {
		t.Fatalf("%d subnets", n)
	}
	var all []held
	claim := dualOf(1)
	for i := range 15 {
		p, err := chooseIPv6(t.Context(), cfg, all, claim, cfg.Subnet(i))
		if err != nil || p != cfg.IPv6Subnet(i) || cfg.Fits(p) != nil {
			t.Fatalf("%d: %s, %v", i, p, err)
		}
		all = append(all, held{lease: overlay.Lease{Subnet: cfg.Subnet(i), IPv6Subnet: p}})
	}
	if _, err := chooseIPv6(t.Context(), cfg, all, claim, cfg.Subnet(20)); !errors.Is(err, overlay.ErrFull) {
		t.Errorf("a full network: %v", err)
	}
	all = all[1:]
	if p, err := chooseIPv6(t.Context(), cfg, all, claim, cfg.Subnet(20)); err != nil || p != cfg.IPv6Subnet(0) {
		t.Errorf("the last one free: %s, %v", p, err)
	}
	claim.Avoid = func(p netip.Prefix) error { return fmt.Errorf("a route to %s", p) }
	if _, err := chooseIPv6(t.Context(), cfg, all, claim, cfg.Subnet(0)); !errors.Is(err, overlay.ErrFull) || !strings.Contains(err.Error(), "a route to fd00:5:0:1::/64") {
		t.Errorf("all to avoid: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := chooseIPv6(ctx, cfg, all, claim, cfg.Subnet(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
