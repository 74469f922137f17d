package etcd

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay"
)

func testSurvey(t *testing.T, w *world) {
	if all, err := w.store.Survey(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("of an empty store: %v %v", all, err)
	}
	if _, err := w.store.Leases(t.Context(), "blue"); !errors.Is(err, overlay.ErrNoConfig) {
		t.Errorf("leases of no network: %v", err)
	}
	w.configure(t, stockConfig)
	w.put(t, "/blue/config", `{"Network":"10.9.0.0/16","Backend":{"Type":"host-gw"}}`)
	w.put(t, "/other", "x")
	w.put(t, "/subnets/10.5.200.0-24", valueOf(7)) // a reservation
	w.put(t, "/subnets/10.5.201.0-24", valueOf(7))
	w.put(t, "/subnets/junk", "{")
	one := w.claim(t, claimOf(1))

	all, err := w.store.Survey(t.Context())
	if err != nil || len(all) != 2 || all[0].Network != "" || all[1].Network != "blue" || all[1].CIDR.String() != "10.9.0.0/16" ||
		all[1].Backend != "host-gw" || len(all[0].Leases) != 3 || len(all[1].Leases) != 0 {
		t.Errorf("networks %+v %v", all, err)
	}
	got, err := w.store.Leases(t.Context(), "")
	if err != nil || len(got.Leases) != 3 || len(got.Odd) != 1 || !strings.HasSuffix(got.Odd[0].Key, "/subnets/junk") {
		t.Fatalf("leases %+v %v", got, err)
	}
	for _, l := range got.Leases {
		ours := l.Subnet == one.Subnet
		if l.Reserved == ours || (l.Left > 0) != ours || l.Left > l.TTL || (len(l.Odd) == 0) != ours {
			t.Errorf("%+v", l)
		}
		if ours && l.TTL != time.Duration(seconds(claimOf(1).TTL))*time.Second {
			t.Errorf("granted %s", l.TTL)
		}
	}
}

func testRemove(t *testing.T, w *world) {
	if err := w.store.Remove(t.Context(), ""); !errors.Is(err, overlay.ErrNoConfig) {
		t.Errorf("of no network: %v", err)
	}
	w.configure(t, stockConfig)
	w.put(t, "/blue/config", stockConfig)
	l := w.claim(t, claimOf(1))
	w.put(t, "/subnets/junk", "{")
	err := w.store.Remove(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("host %s (%s)", l.PublicIP, l.Subnet)) || !strings.Contains(err.Error(), "/subnets/junk") {
		t.Errorf("while leases stand: %v", err)
	}
	if text, _ := w.value(t, "/config"); text == "" {
		t.Error("the config is gone")
	}
	if err := w.store.Remove(t.Context(), "blue"); err != nil {
		t.Errorf("another one: %v", err)
	}
	w.del(t, "/subnets/junk")
	if err := w.store.Release(t.Context(), "", l); err != nil {
		t.Fatal(err)
	}
	// Against claims one of both fails: no lease is left without a config.
	var both sync.WaitGroup
	var claimed error
	other := w.newStore(t)
	both.Go(func() { _, claimed = other.Claim(t.Context(), "", claimOf(2)) })
	removed := w.store.Remove(t.Context(), "")
	both.Wait()
	if (claimed == nil) == (removed == nil) {
		t.Errorf("claimed: %v; removed: %v", claimed, removed)
	}
}
