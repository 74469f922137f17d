package overlay_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// only is the report's one network.
func only(t *testing.T, h *host) report.Network {
	t.Helper()
	synctest.Wait()
	all := h.Report().Networks
	if len(all) != 1 {
		t.Fatalf("%d networks: %+v", len(all), all)
	}
	return all[0]
}

func foreign(subnet, ip, backend string) overlay.Lease {
	return overlay.Lease{
		Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.MustParseAddr(ip), BackendType: backend,
		BackendData: []byte(`{"VNI":1,"VtepMAC":"02:00:00:00:00:09"}`),
	}
}

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		var passes int
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir(), func(o *overlay.Options) { o.Passed = func(time.Duration) { passes++ } })
		if got := a.Report(); len(got.Networks) != 0 {
			t.Errorf("before: %+v", got)
		}
		n := a.network(t)
		p := port(n)
		if err := a.AddPort(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		store.edit(func() {
			for _, l := range []overlay.Lease{foreign("10.5.8.0/24", "192.0.2.8", "vxlan"), foreign("10.5.9.0/24", "192.0.2.9", "warp")} {
				store.leases[l.Subnet] = l
			}
		})
		got := only(t, a)
		if got.Subnet != n.Subnet || got.CIDR != n.CIDR || got.Backend != "vxlan" || got.DockerID != dockerNet || got.Device != "flannel.1" || got.MTU != 1450 ||
			got.PublicIP.String() != "192.0.2.1" || got.Interface != "eth0" || got.Leases != 3 {
			t.Errorf("%+v", got)
		}
		if l := got.Lease; l.State != report.Held || l.Renewals == 0 || l.Since.IsZero() || l.Renewed.IsZero() || l.TTL != 24*time.Hour {
			t.Errorf("lease %+v", l)
		}
		if len(got.Peers) != 2 || got.Peers[0].Skipped != "" || !strings.Contains(got.Peers[1].Skipped, "warp") {
			t.Errorf("peers %+v", got.Peers)
		}
		if len(got.Skipped) != 1 || got.Skipped[0].Key != "10.5.9.0/24" || got.Skips != 1 {
			t.Errorf("skipped %d: %+v", got.Skips, got.Skipped)
		}
		if want := []report.Port{{Endpoint: p.Endpoint, Addr: p.Addr, MAC: p.MAC.String()}}; fmt.Sprint(got.Ports) != fmt.Sprint(want) {
			t.Errorf("ports %v", got.Ports)
		}
		if loop := a.Report().Loop; passes == 0 || loop.Passes != uint64(passes) || loop.Passed.IsZero() {
			t.Errorf("%d passes, loop %+v", passes, loop)
		}
	})
}

// TestSkippedComesBack is for the fault that is gone for a while: it is news
// again, and what is gone is not told any more.
func TestSkippedComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
		a.network(t)
		odd := foreign("10.5.9.0/24", "192.0.2.9", "warp")
		for i := range 3 {
			store.edit(func() { store.leases[odd.Subnet] = odd })
			if got := only(t, a); len(got.Skipped) != 1 || got.Skips != uint64(i+1) {
				t.Fatalf("round %d: skipped %d: %+v", i, got.Skips, got.Skipped)
			}
			store.edit(func() { delete(store.leases, odd.Subnet) })
			if got := only(t, a); len(got.Skipped) != 0 {
				t.Fatalf("round %d: still skipped: %+v", i, got.Skipped)
			}
		}
		if got := strings.Count(a.log.String(), "cannot use"); got != 3 {
			t.Errorf("logged %d times:\n%s", got, a.log)
		}
	})
}

func TestReportOfALeaseTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
		n := a.network(t)
		synctest.Wait()
		store.edit(func() { store.leases[n.Subnet] = foreign(n.Subnet.String(), "192.0.2.66", "vxlan") })
		if l := only(t, a).Lease; l.State != report.Taken || l.TakenBy.String() != "192.0.2.66" || !strings.Contains(l.Error, "docker network") && !strings.Contains(l.Error, "Docker network") {
			t.Errorf("lease %+v", l)
		}
		// That the store goes away does not end the alarm.
		store.edit(func() { store.down = errDown })
		time.Sleep(time.Minute) // the fake clock's
		if l := only(t, a).Lease; l.State != report.Taken {
			t.Errorf("lease %+v", l)
		}
		store.edit(func() { store.down = nil; delete(store.leases, n.Subnet) })
		if l := only(t, a).Lease; l.State != report.Held || l.Error != "" || l.TakenBy.IsValid() {
			t.Errorf("lease %+v", l)
		}
	})
}

func TestReportOfAStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, dir := newMemory(), t.TempDir()
		a := start(t, store, newBoard("192.0.2.1"), dir)
		a.network(t)
		since := only(t, a).Lease.Since
		a.stop()
		store.edit(func() { store.down = errDown })
		b := start(t, store, newBoard("192.0.2.1"), dir)
		if l := only(t, b).Lease; l.State != report.Unconfirmed || !strings.Contains(l.Error, "does not answer") || !l.Since.Equal(since) {
			t.Errorf("lease %+v, since %s before", l, since)
		}
	})
}

func TestReportOfATunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, c := startCarrier(t, newMemory(), newBoard("192.0.2.1"))
		a.network(t)
		c.only(t, 1).broken <- errDown
		time.Sleep(time.Second) // the fake clock's
		c.only(t, 2)
		got := only(t, a)
		if got.Device != "flannel0" || got.Tunnel == nil || got.Tunnel.SentPackets != 6 || got.Tunnel.Drops["no-route"] != 4 || got.Blocked != "" {
			t.Errorf("%+v, tunnel %+v", got, got.Tunnel)
		}
	})
}

func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
		n := a.network(t)
		synctest.Wait()
		cfg, err := overlay.ParseConfig(store.config)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Leave(t.Context(), "", cfg, nil); err == nil || !strings.Contains(err.Error(), "docker network rm "+dockerNet[:12]) {
			t.Errorf("leave while the network stands: %v", err)
		}
		if len(store.held()) != 1 {
			t.Errorf("leases %v", store.held())
		}
		// The store is away when the network is removed, so the lease stays.
		store.edit(func() { store.down = errDown })
		a.remove(t, n)
		if got := only(t, a).Lease.State; got != report.Returning {
			t.Errorf("state %s", got)
		}
		if err := a.Leave(t.Context(), "", cfg, nil); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("leave without a store: %v", err)
		}
		// One that this host does not know any more, and another host's.
		old, other := foreign("10.5.9.0/24", "192.0.2.1", "vxlan"), foreign("10.5.10.0/24", "192.0.2.10", "vxlan")
		store.edit(func() { store.down = nil; store.leases[old.Subnet] = old; store.leases[other.Subnet] = other })
		if err := a.Leave(t.Context(), "", cfg, []overlay.Lease{old, other}); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if held := store.held(); len(held) != 1 || held[other.Subnet].PublicIP != other.PublicIP {
			t.Errorf("leases %v", held)
		}
		time.Sleep(time.Minute) // the fake clock's: the background's own tries end well
		a.network(t)
	})
}
