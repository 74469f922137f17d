package etcd

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// TestEmbedded runs the suite over the embedded server.
func TestEmbedded(t *testing.T) { suite(t, newWorld, startEmbedded(t)) }

// suite is what every etcd must do for us.
func suite[E any](t *testing.T, newWorld func(testing.TB, E) *world, etcd E) {
	for name, test := range map[string]func(*testing.T, *world){
		"ConfigRace":        testConfigRace,
		"DockerLeave":       testDockerLeave,
		"DockerPublish":     testDockerPublish,
		"DockerRetire":      testDockerRetire,
		"DockerUse":         testDockerUse,
		"DockerWatch":       testDockerWatch,
		"ConfigErrors":      testConfigErrors,
		"ClaimFresh":        testClaimFresh,
		"ClaimAgain":        testClaimAgain,
		"ClaimPrefers":      testClaimPrefers,
		"ClaimAvoids":       testClaimAvoids,
		"ClaimMust":         testClaimMust,
		"ClaimStale":        testClaimStale,
		"ClaimTwice":        testClaimTwice,
		"ClaimTTL":          testClaimTTL,
		"ConfigCensus":      testConfigCensus,
		"Networks":          testNetworks,
		"ClaimRespectsJunk": testClaimRespectsJunk,
		"ClaimDualStack":    testClaimDualStack,
		"DualStack":         testDualStack,
		"DualStackMust":     testDualStackMust,
		"DualStackChange":   testDualStackChange,
		"DualStackAtOnce":   testDualStackAtOnce,
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
		"Survey":            testSurvey,
		"Remove":            testRemove,
		"Examine":           testExamine,
		"Forget":            testForget,
		"ForgetDual":        testForgetDual,
	} {
		t.Run(name, func(t *testing.T) { test(t, newWorld(t, etcd)) })
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
			if got[i], err = s.Config(t.Context(), "", fixed(texts[i%2])); err != nil {
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
	_, err := w.store.Config(t.Context(), "", fixed(`{"Network":"x"}`))
	if err == nil || !strings.Contains(err.Error(), `Network "x"`) || !strings.Contains(err.Error(), w.endpoint) {
		t.Errorf("a bad initial config: %v", err)
	}
	if text, _ := w.value(t, "/config"); text != "" {
		t.Errorf("it was written: %s", text)
	}
	w.put(t, "/config", `{"Network":"10.0.0.0/31"}`)
	_, err = w.store.Config(t.Context(), "", fixed(stockConfig))
	if err == nil || !strings.Contains(err.Error(), w.prefix+"/config") {
		t.Errorf("a bad config in etcd: %v", err)
	}
	for _, name := range []string{"config", "subnets", "subnets-blue", "a/b", "..", "blue "} {
		if _, err := w.store.Config(t.Context(), name, fixed(stockConfig)); err == nil {
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

// Twenty hosts that begin six networks at once, the default one among them, agree
// on each, and no two networks get the same.
func testConfigCensus(t *testing.T, w *world) {
	names := []string{"", "net1", "net2", "net3", "net4", "net5"}
	got := make([]overlay.Config, 20)
	var g errgroup.Group
	for i := range got {
		s, name := w.newStore(t), names[i%len(names)]
		g.Go(func() (err error) {
			got[i], err = s.Config(t.Context(), name, func(others map[string]overlay.Config) ([]byte, error) {
				if _, known := others[name]; known {
					t.Errorf("%q is created, and there already", name)
				}
				return overlay.NewConfig(unused(others), 24, nil)
			})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	all, err := w.store.Networks(t.Context())
	if err != nil || len(all) != len(names) {
		t.Fatalf("networks %v, %v", all, err)
	}
	for i, cfg := range got {
		if name := names[i%len(names)]; !cfg.Equal(all[name]) {
			t.Errorf("host %d has %s as %q, which is %s", i, cfg.Network, name, all[name].Network)
		}
	}
	seen := map[netip.Prefix]string{}
	for name, cfg := range all {
		if other, taken := seen[cfg.Network]; taken {
			t.Errorf("%q and %q both have %s", name, other, cfg.Network)
		}
		seen[cfg.Network] = name
	}
}

// unused is the first /16 from 10.6.0.0 that no network has.
func unused(others map[string]overlay.Config) netip.Prefix {
	for n := 6; ; n++ {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), 0, 0}), 16)
		if !slices.ContainsFunc(slices.Collect(maps.Values(others)), func(c overlay.Config) bool { return c.Network == p }) {
			return p
		}
	}
}

// Junk beside the networks is none, and no name of ours.
func testNetworks(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	w.put(t, "/red/config", `{"Network":"10.6.0.0/16"}`)
	for key, value := range map[string]string{
		"/bad/config": "{", "/a/b/config": stockConfig, "/.networks": "red", "/config.old": stockConfig,
		"/red/subnets/10.6.1.0-24": valueOf(1), "/subnets/config": stockConfig,
	} {
		w.put(t, key, value)
	}
	all, err := w.store.Networks(t.Context())
	if err != nil || len(all) != 2 || all[""].Network.String() != "10.5.0.0/16" || all["red"].Network.String() != "10.6.0.0/16" {
		t.Errorf("networks %v, %v", all, err)
	}
}
