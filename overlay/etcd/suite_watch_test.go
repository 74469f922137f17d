package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
)

func testWatch(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	w.put(t, "/subnets/10.5.2.0-24", valueOf(2))
	seen := watch(t, w.store, "")
	want := "10.5.2.0/24 192.168.0.2\n"
	step := func(what, change string) {
		t.Helper()
		want = change
		seen.await(t, what, func(s overlay.Snapshot) bool { return leases(s) == want })
	}
	step("what was there", want)

	w.put(t, "/subnets/10.5.1.0-24", valueOf(1))
	step("a new lease", "10.5.1.0/24 192.168.0.1\n10.5.2.0/24 192.168.0.2\n")

	w.put(t, "/subnets/10.5.2.0-24", valueOf(9))
	step("a changed PublicIP", "10.5.1.0/24 192.168.0.1\n10.5.2.0/24 192.168.0.9\n")

	// Hosts that share a PublicIP are no junk.
	w.put(t, "/subnets/10.5.2.0-24", valueOf(1))
	step("a shared PublicIP", "10.5.1.0/24 192.168.0.1\n10.5.2.0/24 192.168.0.1\n")

	w.del(t, "/subnets/10.5.1.0-24")
	step("a deleted lease", "10.5.2.0/24 192.168.0.1\n")

	// Junk is skipped, key by key.
	junk := []string{
		`junk P/subnets-more: not below P/subnets/, yet flanneld takes it for a lease`,
		`junk P/subnets/10.5.2.0-24&fd00::-64: subnet fd00::/64: the network does not use IPv6`,
		`junk P/subnets/10.5.3.0-25: subnet 10.5.3.0/25: SubnetLen is 24`,
		`junk P/subnets/10.5.4.0-24: PublicIP "10.8.65" is not a host's IPv4 address`,
		`junk P/subnets/10.6.1.0-24: subnet 10.6.1.0/24 is outside of SubnetMin 10.5.1.0 to SubnetMax 10.5.255.0`,
		`junk P/subnets/hello: "hello" is not a subnet in the form 10.5.34.0-24`,
	}
	w.put(t, "/subnets-more", valueOf(3))
	w.put(t, "/subnets/10.5.2.0-24&fd00::-64", valueOf(3))
	w.put(t, "/subnets/10.5.3.0-25", valueOf(3))
	w.put(t, "/subnets/10.5.4.0-24", `{"PublicIP":"10.8.65"}`)
	w.put(t, "/subnets/10.6.1.0-24", valueOf(3))
	w.put(t, "/subnets/hello", valueOf(3))
	text := strings.ReplaceAll(strings.Join(junk, "\n"), "P/", w.prefix+"/")
	step("junk", "10.5.2.0/24 192.168.0.1\n"+text+"\n")

	// A watch that starts now sees the same.
	watch(t, w.newStore(t), "").await(t, "the same", func(s overlay.Snapshot) bool { return leases(s) == want })

	for _, key := range []string{"-more", "/10.5.2.0-24&fd00::-64", "/10.5.3.0-25", "/10.5.4.0-24", "/10.6.1.0-24", "/hello"} {
		w.del(t, "/subnets"+key)
	}
	step("no junk", "10.5.2.0/24 192.168.0.1\n")
}

func testWatchConfig(t *testing.T, w *world) {
	seen := watch(t, w.store, "")
	junk := func(reason string) func(overlay.Snapshot) bool {
		return func(s overlay.Snapshot) bool {
			return len(s.Junk) == 1 && s.Junk[0].Key == w.prefix+"/config" && strings.Contains(s.Junk[0].Reason, reason)
		}
	}
	s := seen.await(t, "no config", junk(overlay.ErrNoConfig.Error()))
	if s.Config.EnableIPv4 || len(s.Leases) > 0 {
		t.Errorf("snapshot without a config: %+v", s)
	}
	w.put(t, "/subnets/10.5.2.0-24", valueOf(2))
	w.configure(t, stockConfig)
	const one = "10.5.2.0/24 192.168.0.2\n"
	s = seen.await(t, "a config", func(s overlay.Snapshot) bool { return leases(s) == one })
	good := s.Config

	w.put(t, "/config", `{"Network":"10.5.0.0/16","SubnetLen":31}`)
	s = seen.await(t, "a bad config", junk("SubnetLen 31"))
	if !s.Config.Equal(good) || len(s.Leases) != 1 {
		t.Errorf("under a bad config: %+v", s)
	}
	w.del(t, "/config")
	s = seen.await(t, "a deleted config", junk("the last good one stays in use"))
	if !s.Config.Equal(good) || len(s.Leases) != 1 {
		t.Errorf("without the config: %+v", s)
	}
	w.put(t, "/config", `{"Network":"10.5.0.0/16","SubnetLen":25}`)
	s = seen.await(t, "another config", func(s overlay.Snapshot) bool { return s.Config.SubnetLen == 25 })
	if len(s.Leases) != 0 || len(s.Junk) != 1 {
		t.Errorf("the lease stays: %s", leases(s))
	}
	w.put(t, "/config", stockConfig)
	seen.await(t, "the first config", func(s overlay.Snapshot) bool { return leases(s) == one })
}

// Networks below one prefix do not see each other.
func testWatchNetworks(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	if _, err := w.store.Config(t.Context(), "green", fixed(`{"Network":"10.6.0.0/16"}`)); err != nil {
		t.Fatal(err)
	}
	plain, green := watch(t, w.store, ""), watch(t, w.store, "green")
	w.put(t, "/subnets/10.5.1.0-24", valueOf(1))
	w.put(t, "/green/subnets/10.6.1.0-24", valueOf(1))
	w.put(t, "/green/subnets/junk", "")
	w.put(t, "/green/config", `{"Network":"10.6.0.0/16","SubnetLen":25}`)
	w.put(t, "/green/config", `{"Network":"10.6.0.0/16"}`)
	w.put(t, "/subnets/10.5.2.0-24", valueOf(2))
	seen := 0
	plain.await(t, "two leases", func(s overlay.Snapshot) bool {
		seen++
		if len(s.Junk) > 0 {
			t.Errorf("junk: %s", leases(s))
		}
		return len(s.Leases) == 2
	})
	if seen > 3 {
		t.Errorf("%d snapshots for two changes", seen)
	}
	green.await(t, "the lease", func(s overlay.Snapshot) bool {
		return len(s.Leases) == 1 && len(s.Junk) == 1 && s.Config.SubnetLen == 24
	})
}

// What changed while there was no connection is there after it, though its
// history is compacted.
func testWatchReconnect(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	w.put(t, "/subnets/10.5.1.0-24", valueOf(1))
	w.put(t, "/subnets/10.5.2.0-24", valueOf(2))
	p := newProxy(t, w.endpoint)
	through := w.user
	through.Endpoints = []string{p.endpoint()}
	seen := watch(t, New(dialAs(t, through), w.prefix), "")
	seen.await(t, "two leases", func(s overlay.Snapshot) bool { return len(s.Leases) == 2 })
	for i := range 3 {
		p.cut()
		w.del(t, fmt.Sprintf("/subnets/10.5.%d.0-24", i+1))
		w.put(t, fmt.Sprintf("/subnets/10.5.%d.0-24", i+3), valueOf(i+3))
		got, err := w.client.Get(t.Context(), "/")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.client.Compact(t.Context(), got.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
			t.Fatal(err)
		}
		p.join(t)
		start := time.Now()
		want := fmt.Sprintf("10.5.%d.0/24 192.168.0.%d\n10.5.%d.0/24 192.168.0.%d\n", i+2, i+2, i+3, i+3)
		seen.await(t, "the changes", func(s overlay.Snapshot) bool { return leases(s) == want })
		t.Logf("seen %s after the connection was back", time.Since(start))
		// And the watch goes on.
		w.put(t, "/subnets/10.5.99.0-24", valueOf(99))
		seen.await(t, "a change after it", func(s overlay.Snapshot) bool { return len(s.Leases) == 3 })
		w.del(t, "/subnets/10.5.99.0-24")
		seen.await(t, "another", func(s overlay.Snapshot) bool { return len(s.Leases) == 2 })
	}
}

// A watch from a revision that is compacted breaks off, so that Watch reads
// everything again.
func testWatchCompacted(t *testing.T, w *world) {
	w.configure(t, stockConfig)
	st, err := w.store.read(t.Context(), keys{base: w.prefix})
	if err != nil {
		t.Fatal(err)
	}
	w.put(t, "/subnets/10.5.1.0-24", valueOf(1))
	rev := w.modified(t, "/subnets/10.5.1.0-24")
	w.put(t, "/subnets/10.5.1.0-24", valueOf(2))
	if _, err := w.client.Compact(t.Context(), rev+1); err != nil {
		t.Fatal(err)
	}
	v := newView(keys{base: w.prefix})
	v.reset(st)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = w.store.stream(ctx, v, func(s overlay.Snapshot) { t.Errorf("emitted %s", leases(s)) })
	if !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("stream ended with %v", err)
	}
}

// large is how many leases a cluster may well have.
const large = 5000

// fill writes n leases, reservations all.
func fill(t testing.TB, w *world, n int) {
	t.Helper()
	w.configure(t, `{"Network":"10.0.0.0/8","SubnetLen":24}`)
	cfg, err := w.store.Config(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	k := keys{base: w.prefix}
	var ops []clientv3.Op
	i := 0
	for p := range cfg.Subnets() {
		if i == n {
			break
		}
		i++
		ops = append(ops, clientv3.OpPut(k.lease(p, netip.Prefix{}), valueOf(i)))
		if len(ops) == 100 || i == n {
			if _, err := w.client.Txn(t.Context()).Then(ops...).Commit(); err != nil {
				t.Fatal(err)
			}
			ops = ops[:0]
		}
	}
}

func testWatchLarge(t *testing.T, w *world) {
	fill(t, w, large)
	start := time.Now()
	seen := watch(t, w.store, "")
	s := seen.await(t, "all leases", func(s overlay.Snapshot) bool { return len(s.Leases) == large })
	t.Logf("%d leases seen %s after the start of the watch", len(s.Leases), time.Since(start))
	start = time.Now()
	w.put(t, "/subnets/10.200.1.0-24", valueOf(1))
	put := time.Since(start)
	seen.await(t, "one more", func(s overlay.Snapshot) bool { return len(s.Leases) == large+1 })
	t.Logf("one more seen after %s, %s of them for writing it", time.Since(start), put)
	start = time.Now()
	w.claim(t, claimOf(large+1))
	t.Logf("a claim among them took %s", time.Since(start))
}
