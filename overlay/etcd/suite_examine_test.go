package etcd

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// testExamine asks a server that serves, and a port where none does.
func testExamine(t *testing.T, w *world) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	deaf := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o := w.user
	if !strings.HasPrefix(w.endpoint, "https") {
		o.Endpoints = []string{deaf, w.endpoint}
	}
	var all []report.Endpoint
	var last report.Endpoint
	told := false
	for end := time.Now().Add(patience); !told && time.Now().Before(end); { // it waits only so long for a slow server
		all = Examine(t.Context(), o, w.prefix)
		last = all[len(all)-1]
		told = last.Error == "" && (!strings.HasPrefix(last.URL, "http") || last.Dated && last.Version != "")
	}
	if !told || last.Took <= 0 || last.Took > patience || last.Ahead.Abs() > 5*time.Second {
		t.Errorf("%+v", last)
	}
	if len(all) == 2 && (!strings.Contains(all[0].Error, "refused") || all[0].URL != deaf) {
		t.Errorf("a port where nobody listens: %+v", all[0])
	}
}

// testForget deletes the lease of a host, and no other.
func testForget(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	w.put(t, "/subnets/10.5.200.0-24", valueOf(7))
	one, two := w.claim(t, claimOf(1)), w.claim(t, claimOf(2))
	lease := func(l overlay.Lease) report.ClusterLease {
		return report.ClusterLease{Subnet: l.Subnet, PublicIP: l.PublicIP}
	}
	if err := w.store.Forget(t.Context(), "", lease(one)); err != nil {
		t.Error(err)
	}
	if err := w.store.Forget(t.Context(), "", lease(one)); err == nil {
		t.Error("the lease was deleted twice")
	}
	other := lease(two)
	other.PublicIP = one.PublicIP
	if err := w.store.Forget(t.Context(), "", other); err == nil {
		t.Error("the lease of another host was deleted")
	}
	reserved := report.ClusterLease{Subnet: netip.MustParsePrefix("10.5.200.0/24"), Reserved: true}
	if err := w.store.Forget(t.Context(), "", reserved); err == nil || !strings.Contains(err.Error(), "etcdctl del '") {
		t.Errorf("a reservation: %v", err)
	}
	got, err := w.store.Leases(t.Context(), "")
	if err != nil || len(got.Leases) != 2 {
		t.Errorf("left are %+v, %v", got.Leases, err)
	}
	text, err := w.store.Text(t.Context())
	if err != nil || !strings.Contains(text, "/subnets/10.5.200.0-24 {") || !strings.Contains(text, "/config "+stockConfig) {
		t.Errorf("%s, %v", text, err)
	}
}

// testForgetDual deletes a lease whose key names an IPv6 subnet too.
func testForgetDual(t *testing.T, w *world) {
	w.configure(t, dualConfig)
	l := w.claim(t, dualOf(1))
	if !l.IPv6Subnet.IsValid() {
		t.Fatalf("no dual-stack lease: %+v", l)
	}
	if err := w.store.Forget(t.Context(), "", report.ClusterLease{Subnet: l.Subnet, PublicIP: l.PublicIP}); err != nil {
		t.Error(err)
	}
	if got, err := w.store.Leases(t.Context(), ""); err != nil || len(got.Leases) > 0 {
		t.Errorf("left are %+v, %v", got.Leases, err)
	}
}
