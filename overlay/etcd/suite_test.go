package etcd

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// TestEmbedded runs the suite over the embedded server.
func TestEmbedded(t *testing.T) { suite(t, startEmbedded(t)) }

// suite is what every etcd must do for us.
func suite(t *testing.T, endpoint string) {
	for name, test := range map[string]func(*testing.T, *world){
		"ConfigRace":        testConfigRace,
		"ConfigErrors":      testConfigErrors,
		"ClaimFresh":        testClaimFresh,
		"ClaimAgain":        testClaimAgain,
		"ClaimPrefers":      testClaimPrefers,
		"ClaimAvoids":       testClaimAvoids,
		"ClaimMust":         testClaimMust,
		"ClaimStale":        testClaimStale,
		"ClaimTwice":        testClaimTwice,
		"ClaimTTL":          testClaimTTL,
		"ClaimRespectsJunk": testClaimRespectsJunk,
		"ClaimDualStack":    testClaimDualStack,
		"ClaimCancelled":    testClaimCancelled,
		"Reservation":       testReservation,
		"JoinAtOnce":        testJoinAtOnce,
		"Full":              testFull,
		"LostAndFound":      testLostAndFound,
		"KeepErrors":        testKeepErrors,
		"Release":           testRelease,
		"Watch":             testWatch,
		"WatchConfig":       testWatchConfig,
		"WatchNetworks":     testWatchNetworks,
		"WatchReconnect":    testWatchReconnect,
		"WatchCompacted":    testWatchCompacted,
		"WatchLarge":        testWatchLarge,
		"Census":            testCensus,
		"Remove":            testRemove,
	} {
		t.Run(name, func(t *testing.T) { test(t, newWorld(t, endpoint)) })
	}
}

// Of two writers one wins, and both see the same.
func testConfigRace(t *testing.T, w *world) {
	if _, err := w.store.Config(t.Context(), "", nil); !errors.Is(err, overlay.ErrNoConfig) {
		t.Fatalf("without a config: %v", err)
	}
	texts := []string{`{"Network":"10.1.0.0/16"}`, `{"Network":"10.2.0.0/16"}`}
	got := make([]overlay.Config, 8)
	var all sync.WaitGroup
	for i := range got {
		s := w.newStore(t)
		all.Go(func() {
			var err error
			if got[i], err = s.Config(t.Context(), "", []byte(texts[i%2])); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	text, leased := w.value(t, "/config")
	if !slices.Contains(texts, text) || leased {
		t.Fatalf("config %s, leased %v", text, leased)
	}
	want, err := overlay.ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range got {
		if !c.Equal(want) {
			t.Errorf("writer %d got %s", i, c.Network)
		}
	}
}

func testConfigErrors(t *testing.T, w *world) {
	_, err := w.store.Config(t.Context(), "", []byte(`{"Network":"x"}`))
	if err == nil || !strings.Contains(err.Error(), `Network "x"`) || !strings.Contains(err.Error(), w.endpoint) {
		t.Errorf("a bad initial config: %v", err)
	}
	if text, _ := w.value(t, "/config"); text != "" {
		t.Errorf("it was written: %s", text)
	}
	w.put(t, "/config", `{"Network":"10.0.0.0/31"}`)
	_, err = w.store.Config(t.Context(), "", []byte(stockConfig))
	if err == nil || !strings.Contains(err.Error(), w.prefix+"/config") {
		t.Errorf("a bad config in etcd: %v", err)
	}
	for _, name := range []string{"config", "subnets", "subnets-blue", "a/b", "..", "blue "} {
		if _, err := w.store.Config(t.Context(), name, []byte(stockConfig)); err == nil {
			t.Errorf("network %q is accepted", name)
		}
	}
}

// A lost lease is claimed back under the same subnet.
func testLostAndFound(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	l := w.claim(t, claimOf(1))
	key := "/subnets/" + formatSubnet(l.Subnet, netip.Prefix{})
	before := w.modified(t, key)
	if err := w.store.Keep(t.Context(), "", l); err != nil {
		t.Fatal(err)
	}
	if w.modified(t, key) != before {
		t.Error("Keep wrote the key")
	}
	w.del(t, key)
	if err := w.store.Keep(t.Context(), "", l); !errors.Is(err, overlay.ErrLeaseLost) {
		t.Fatalf("Keep of a deleted key: %v", err)
	}
	c := claimOf(1)
	c.Prefer, c.Must = l.Subnet, true
	if again := w.claim(t, c); again.Subnet != l.Subnet {
		t.Errorf("claimed back %s", again.Subnet)
	}
}

func testKeepErrors(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	l := w.claim(t, claimOf(1))
	key := "/subnets/" + formatSubnet(l.Subnet, netip.Prefix{})

	got, err := w.client.Get(t.Context(), w.prefix+key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Revoke(t.Context(), clientv3.LeaseID(got.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Keep(t.Context(), "", l); !errors.Is(err, overlay.ErrLeaseLost) {
		t.Errorf("an expired lease: %v", err)
	}
	for what, value := range map[string]string{"another host's lease": valueOf(2), "junk": "{"} {
		w.put(t, key, value)
		if err := w.store.Keep(t.Context(), "", l); !errors.Is(err, overlay.ErrLeaseLost) {
			t.Errorf("%s: %v", what, err)
		}
		if err := w.store.Release(t.Context(), "", l); err != nil {
			t.Errorf("release %s: %v", what, err)
		}
		if got, _ := w.value(t, key); got != value {
			t.Errorf("%s became %q", what, got)
		}
	}
}

func testRelease(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	l := w.claim(t, claimOf(1))
	for range 2 { // once more does no harm
		if err := w.store.Release(t.Context(), "", l); err != nil {
			t.Fatal(err)
		}
		if got, _ := w.value(t, "/subnets/"+formatSubnet(l.Subnet, netip.Prefix{})); got != "" {
			t.Errorf("value %s", got)
		}
	}
	w.checkLeases(t)
}
