package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay"
)

func testClaimFresh(t *testing.T, w *world) {
	if _, err := w.store.Claim(t.Context(), "", claimOf(1)); !errors.Is(err, overlay.ErrNoConfig) {
		t.Fatalf("without a config: %v", err)
	}
	w.configure(t, stockConfig)
	l := w.claim(t, claimOf(1))
	cfg, err := w.store.Config(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Fits(l.Subnet); err != nil || l.Reserved || l.PublicIP != host(1) {
		t.Errorf("lease %+v: %v", l, err)
	}
	key := "/subnets/" + formatSubnet(l.Subnet, netip.Prefix{})
	if got, leased := w.value(t, key); got != valueOf(1) || !leased {
		t.Errorf("value %s, leased %v", got, leased)
	}
	// In a network with a name, the same under its name.
	if _, err := w.store.Config(t.Context(), "blue", fixed(`{"Network":"10.6.0.0/16"}`)); err != nil {
		t.Fatal(err)
	}
	l, err = w.store.Claim(t.Context(), "blue", claimOf(1))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := w.value(t, "/blue/subnets/"+formatSubnet(l.Subnet, netip.Prefix{})); got != valueOf(1) {
		t.Errorf("value %s in network blue", got)
	}
	w.checkLeases(t)
}

// A host keeps its subnet, and its key too where nothing changed.
func testClaimAgain(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	first := w.claim(t, claimOf(1))
	key := "/subnets/" + formatSubnet(first.Subnet, netip.Prefix{})
	before := w.modified(t, key)
	other := claimOf(1)
	other.Prefer = subnet("10.5.77.0/24")
	if l := w.claim(t, other); l.Subnet != first.Subnet {
		t.Errorf("moved from %s to %s", first.Subnet, l.Subnet)
	}
	if after := w.modified(t, key); after != before {
		t.Error("the key was written although nothing changed")
	}
	other.BackendData = []byte(`{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}`)
	if l := w.claim(t, other); l.Subnet != first.Subnet || string(l.BackendData) != string(other.BackendData) {
		t.Errorf("lease %+v", l)
	}
	if got, leased := w.value(t, key); !strings.Contains(got, ":99") || !leased {
		t.Errorf("value %s, leased %v", got, leased)
	}
	w.checkLeases(t)
}

func testClaimPrefers(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	c := claimOf(1)
	c.Prefer = subnet("10.5.77.0/24")
	if l := w.claim(t, c); l.Subnet != c.Prefer {
		t.Errorf("lease %s instead of the earlier subnet", l.Subnet)
	}
	for _, p := range []string{"10.5.77.0/24", "10.5.0.0/24", "10.6.1.0/24", "10.5.78.0/25"} {
		c := claimOf(2)
		c.Prefer = subnet(p)
		l := w.claim(t, c)
		if l.Subnet == c.Prefer {
			t.Errorf("%s was leased", p)
		}
		if err := w.store.Release(t.Context(), "", l); err != nil {
			t.Fatal(err)
		}
	}
}

func testClaimAvoids(t *testing.T, w *world) {
	w.configure(t, `{"Network":"10.5.0.0/16","SubnetMin":"10.5.16.0","SubnetMax":"10.5.31.0"}`)
	c := claimOf(1)
	c.Prefer = subnet("10.5.20.0/24")
	c.Avoid = func(p netip.Prefix) error {
		if p != subnet("10.5.25.0/24") {
			return fmt.Errorf("a route to %s", p)
		}
		return nil
	}
	if l := w.claim(t, c); l.Subnet != subnet("10.5.25.0/24") {
		t.Errorf("lease %s", l.Subnet)
	}
	c.PublicIP = host(2)
	_, err := w.store.Claim(t.Context(), "", c)
	if !errors.Is(err, overlay.ErrFull) || !strings.Contains(err.Error(), "a route to") {
		t.Errorf("with all others to avoid: %v", err)
	}
	c.Must = true
	if l := w.claim(t, c); l.Subnet != c.Prefer {
		t.Errorf("lease %s, although it had to be %s", l.Subnet, c.Prefer)
	}
	w.checkLeases(t)
}

func testClaimMust(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	c := claimOf(1)
	c.Prefer = subnet("10.5.77.0/24")
	first := w.claim(t, c)
	c = claimOf(2)
	c.Must, c.Prefer = true, first.Subnet
	_, err := w.store.Claim(t.Context(), "", c)
	var taken *overlay.TakenError
	if !errors.As(err, &taken) || taken.Subnet != first.Subnet || taken.Owner != host(1) {
		t.Fatalf("a taken subnet: %v", err)
	}
	if !strings.Contains(err.Error(), w.endpoint) {
		t.Errorf("error %q does not name the endpoint", err)
	}
	c.Prefer = subnet("10.7.1.0/24")
	if _, err := w.store.Claim(t.Context(), "", c); err == nil || errors.As(err, &taken) {
		t.Errorf("a subnet of another network: %v", err)
	}
	c.Prefer = subnet("10.5.200.0/24")
	if l := w.claim(t, c); l.Subnet != c.Prefer {
		t.Errorf("lease %s", l.Subnet)
	}
	// A host that must have another subnet gets it, or nothing.
	c.Prefer = subnet("10.5.201.0/24")
	if l := w.claim(t, c); l.Subnet != c.Prefer {
		t.Errorf("lease %s", l.Subnet)
	}
	w.checkLeases(t)
}

// After a change of the config a lease that does not fit makes room.
func testClaimStale(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	w.put(t, "/subnets/10.5.3.0-24", valueOf(2)) // a reservation stays
	old := w.claim(t, claimOf(1))
	w.put(t, "/config", `{"Network":"10.5.0.0/16","SubnetLen":26}`)
	for i := range 2 {
		if l := w.claim(t, claimOf(i+1)); l.Subnet.Bits() != 26 {
			t.Errorf("host %d: lease %s", i+1, l.Subnet)
		}
	}
	if got, _ := w.value(t, "/subnets/"+formatSubnet(old.Subnet, netip.Prefix{})); got != "" {
		t.Errorf("the stale lease is still there: %s", got)
	}
	if got, _ := w.value(t, "/subnets/10.5.3.0-24"); got != valueOf(2) {
		t.Errorf("the reservation became %q", got)
	}
	w.checkLeases(t)
}

// Of two leases with one PublicIP the preferred is kept, or else the older; the
// other may be a second host's.
func testClaimTwice(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	w.put(t, "/subnets/10.5.9.0-24", valueOf(1))
	w.put(t, "/subnets/10.5.8.0-24", valueOf(1))
	c := claimOf(1)
	if l := w.claim(t, c); l.Subnet != subnet("10.5.9.0/24") {
		t.Errorf("lease %s, not the older", l.Subnet)
	}
	c.Prefer = subnet("10.5.8.0/24")
	if l := w.claim(t, c); l.Subnet != c.Prefer {
		t.Errorf("lease %s, not the preferred", l.Subnet)
	}
	for _, key := range []string{"/subnets/10.5.8.0-24", "/subnets/10.5.9.0-24"} {
		if got, _ := w.value(t, key); got != valueOf(1) {
			t.Errorf("%s: %q", key, got)
		}
	}
}

// Every readable key takes its room, whatever its value or length.
func testClaimRespectsJunk(t *testing.T, w *world) {
	w.configure(t, `{"Network":"10.5.0.0/16","SubnetMin":"10.5.16.0","SubnetMax":"10.5.19.0"}`)
	w.put(t, "/subnets/10.5.16.0-24", "junk")
	w.put(t, "/subnets/10.5.17.0-24&fd00:5:0:4b::-64", valueOf(7))
	w.put(t, "/subnets/10.5.18.128-25", valueOf(8))
	w.put(t, "/subnets/what-is-this", valueOf(9))
	if l := w.claim(t, claimOf(1)); l.Subnet != subnet("10.5.19.0/24") {
		t.Errorf("lease %s", l.Subnet)
	}
	for prefer, owner := range map[string]netip.Addr{
		"10.5.16.0/24": {}, "10.5.17.0/24": host(7), "10.5.18.0/24": host(8),
	} {
		c := claimOf(2)
		c.Prefer, c.Must = subnet(prefer), true
		_, err := w.store.Claim(t.Context(), "", c)
		var taken *overlay.TakenError
		if !errors.As(err, &taken) || taken.Owner != owner {
			t.Errorf("%s: %v", prefer, err)
		}
	}
	if _, err := w.store.Claim(t.Context(), "", claimOf(2)); !errors.Is(err, overlay.ErrFull) {
		t.Errorf("a full network: %v", err)
	}
}

// A lease that has an IPv6 subnet keeps it, with what was published for it.
func testClaimDualStack(t *testing.T, w *world) {
	w.configure(t, `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}`)
	const key = "/subnets/10.5.9.0-24&fd00:5:0:4b::-64"
	w.put(t, key, `{"PublicIP":"192.168.0.1","PublicIPv6":"fd00::1","BackendType":"vxlan","BackendV6Data":{"VNI":1}}`)
	l := w.claim(t, claimOf(1))
	if l.Subnet != subnet("10.5.9.0/24") || l.IPv6Subnet != subnet("fd00:5:0:4b::/64") || !l.Reserved {
		t.Errorf("lease %+v", l)
	}
	want := `{"PublicIP":"192.168.0.1","PublicIPv6":"fd00::1","BackendType":"vxlan",` +
		`"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"},"BackendV6Data":{"VNI":1}}`
	if got, _ := w.value(t, key); got != want {
		t.Errorf("value %s", got)
	}
	if err := w.store.Keep(t.Context(), "", l); err != nil {
		t.Error(err)
	}
	if l := w.claim(t, claimOf(2)); l.IPv6Subnet.IsValid() {
		t.Errorf("a fresh lease has %s", l.IPv6Subnet)
	}
}

func testClaimCancelled(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.store.Claim(ctx, "", claimOf(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	c := claimOf(1)
	c.Prefer = subnet("10.5.9.0/24")
	c.Avoid = func(netip.Prefix) error {
		cancel()
		return nil
	}
	if _, err := w.store.Claim(ctx, "", c); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled on the way: %v", err)
	}
	w.checkLeases(t)
}

// A reservation (a key without a time to live) never gets one.
func testReservation(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	const key = "/subnets/10.5.34.0-24"
	w.put(t, key, `{"PublicIP":"192.168.0.1"}`)
	c := claimOf(1)
	c.Prefer = subnet("10.5.77.0/24")
	for range 2 {
		if l := w.claim(t, c); l.Subnet != subnet("10.5.34.0/24") || !l.Reserved {
			t.Errorf("lease %+v", l)
		}
		if got, leased := w.value(t, key); got != valueOf(1) || leased {
			t.Errorf("value %s, leased %v", got, leased)
		}
	}
	l := w.claim(t, c)
	if err := w.store.Keep(t.Context(), "", l); err != nil {
		t.Error(err)
	}
	if err := w.store.Release(t.Context(), "", l); err != nil {
		t.Error(err)
	}
	if got, leased := w.value(t, key); got != valueOf(1) || leased {
		t.Errorf("after Release: value %s, leased %v", got, leased)
	}
	w.checkLeases(t)
}

// join lets n hosts claim at the same moment, each with its own client.
func join(t *testing.T, w *world, n int) []overlay.Lease {
	t.Helper()
	got := make([]overlay.Lease, n)
	stores := make([]*Store, n)
	for i := range stores {
		stores[i] = w.newStore(t)
	}
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range got {
		all.Go(func() {
			<-start
			var err error
			if got[i], err = stores[i].Claim(t.Context(), "", claimOf(i+1)); err != nil {
				t.Error(err)
			}
		})
	}
	begin := time.Now()
	close(start)
	all.Wait()
	t.Logf("%d hosts joined in %s", n, time.Since(begin))
	seen := map[netip.Prefix]int{}
	for i, l := range got {
		if j, ok := seen[l.Subnet]; ok {
			t.Errorf("hosts %d and %d both hold %s", j, i, l.Subnet)
		}
		seen[l.Subnet] = i
	}
	return got
}

func testJoinAtOnce(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	join(t, w, 20)
	w.checkLeases(t)
}

func testFull(t *testing.T, w *world) {
	w.configure(t, `{"Network":"10.5.0.0/16","SubnetMin":"10.5.16.0","SubnetMax":"10.5.31.0"}`)
	got := join(t, w, 16)
	_, err := w.store.Claim(t.Context(), "", claimOf(17))
	if !errors.Is(err, overlay.ErrFull) || !strings.Contains(err.Error(), "16") {
		t.Errorf("the 17th host: %v", err)
	}
	if err := w.store.Release(t.Context(), "", got[3]); err != nil {
		t.Fatal(err)
	}
	if l := w.claim(t, claimOf(17)); l.Subnet != got[3].Subnet {
		t.Errorf("lease %s instead of the free %s", l.Subnet, got[3].Subnet)
	}
	w.checkLeases(t)
}

// A claim with another time to live changes that of the lease it keeps.
func testClaimTTL(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	c := claimOf(1)
	first := w.claim(t, c)
	key := "/subnets/" + formatSubnet(first.Subnet, netip.Prefix{})
	before := w.etcdLease(t, key)
	for _, ttl := range []time.Duration{time.Hour, 2 * time.Hour, 30 * time.Second} {
		c.TTL = ttl
		if l := w.claim(t, c); l.Subnet != first.Subnet {
			t.Errorf("TTL %s: lease %s, not %s", ttl, l.Subnet, first.Subnet)
		}
		id := w.etcdLease(t, key)
		if same := id == before; same != (ttl == time.Hour) {
			t.Errorf("TTL %s: same etcd lease %t", ttl, same)
		}
		got, err := w.client.TimeToLive(t.Context(), id)
		if err != nil || got.GrantedTTL != int64(ttl/time.Second) {
			t.Errorf("TTL %s: %+v, %v", ttl, got, err)
		}
		before = id
	}
	w.checkLeases(t)
}
