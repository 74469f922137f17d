package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/embedded"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

const stockConfig = `{"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}`

// startEmbedded runs an embedded server for one test and returns its endpoint.
func startEmbedded(t testing.TB) string {
	s := embedded.New(embedded.Options{Dir: t.TempDir(), Listen: "http://127.0.0.1:0"})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	return s.Endpoint()
}

// world is one test's part of a server: a prefix of its own.
type world struct {
	endpoint string
	user     Options // of the stores
	prefix   string
	client   *clientv3.Client // the test's own
	store    *Store           // on another client
	before   map[clientv3.LeaseID]bool
}

func newWorld(t testing.TB, endpoint string) *world {
	open := Options{Endpoints: []string{endpoint}}
	return newWorldOf(t, open, open)
}

// newWorldOf is a world whose test is one client, and whose stores are another.
func newWorldOf(t testing.TB, test, stores Options) *world {
	w := &world{endpoint: stores.Endpoints[0], user: stores, prefix: "/" + t.Name(), client: dialAs(t, test)}
	w.store = w.newStore(t)
	w.before = map[clientv3.LeaseID]bool{}
	all, err := w.client.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all.Leases {
		w.before[l.ID] = true
	}
	return w
}

func dial(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	return dialAs(t, Options{Endpoints: []string{endpoint}})
}

func dialAs(t testing.TB, o Options) *clientv3.Client {
	t.Helper()
	if o.CallTimeout == 0 {
		o.CallTimeout = 20 * time.Second
	}
	c, err := Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// newStore is another host's store.
func (w *world) newStore(t testing.TB) *Store {
	return New(dialAs(t, w.user), w.prefix)
}

func (w *world) configure(t testing.TB, config string) {
	t.Helper()
	if _, err := w.store.Config(t.Context(), "", fixed(config)); err != nil {
		t.Fatal(err)
	}
}

func (w *world) put(t testing.TB, key, value string) {
	t.Helper()
	if _, err := w.client.Put(t.Context(), w.prefix+key, value); err != nil {
		t.Fatal(err)
	}
}

func (w *world) del(t testing.TB, key string) {
	t.Helper()
	got, err := w.client.Delete(t.Context(), w.prefix+key)
	if err != nil {
		t.Fatal(err)
	}
	if got.Deleted != 1 {
		t.Fatalf("%d keys deleted at %s", got.Deleted, key)
	}
}

// value returns a key's value, and whether it is attached to an etcd lease.
func (w *world) value(t testing.TB, key string) (value string, leased bool) {
	t.Helper()
	got, err := w.client.Get(t.Context(), w.prefix+key)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) == 0 {
		return "", false
	}
	return string(got.Kvs[0].Value), got.Kvs[0].Lease != 0
}

// etcdLease returns a key's etcd lease.
func (w *world) etcdLease(t testing.TB, key string) clientv3.LeaseID {
	t.Helper()
	got, err := w.client.Get(t.Context(), w.prefix+key)
	if err != nil || len(got.Kvs) == 0 {
		t.Fatalf("get %s: %v, %v", key, got, err)
	}
	return clientv3.LeaseID(got.Kvs[0].Lease)
}

// modified returns a key's revision.
func (w *world) modified(t testing.TB, key string) int64 {
	t.Helper()
	got, err := w.client.Get(t.Context(), w.prefix+key)
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("get %s: %v, %v", key, got, err)
	}
	return got.Kvs[0].ModRevision
}

// checkLeases fails if the test leaves etcd leases behind that no key is attached
// to. One that was given up goes a little later where the disk is slow.
func (w *world) checkLeases(t testing.TB) {
	t.Helper()
	leaked := w.leaked(t)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); len(leaked) > 0 && time.Now().Before(end); <-tick.C {
		leaked = w.leaked(t)
	}
	for id, ttl := range leaked {
		t.Errorf("etcd lease %x with TTL %d is leaked", id, ttl)
	}
}

// leaked returns the TTLs of the test's etcd leases that no key is attached to.
func (w *world) leaked(t testing.TB) map[clientv3.LeaseID]int64 {
	t.Helper()
	leaked := map[clientv3.LeaseID]int64{}
	all, err := w.client.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all.Leases {
		if w.before[l.ID] {
			continue
		}
		got, err := w.client.TimeToLive(t.Context(), l.ID, clientv3.WithAttachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Keys) == 0 && got.TTL >= 0 {
			leaked[l.ID] = got.GrantedTTL
		}
	}
	return leaked
}

// host is the address of host i.
func host(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)})
}

// claimOf is a usual claim of host i.
func claimOf(i int) overlay.Claim {
	return overlay.Claim{
		PublicIP:    host(i),
		BackendType: "vxlan",
		BackendData: fmt.Appendf(nil, `{"VNI":1,"VtepMAC":"02:00:00:00:%02x:%02x"}`, byte(i>>8), byte(i)),
		TTL:         time.Hour,
	}
}

// valueOf is the value of host i's lease.
func valueOf(i int) string {
	c := claimOf(i)
	return fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":null,"BackendType":"vxlan","BackendData":%s}`, c.PublicIP, c.BackendData)
}

func (w *world) claim(t testing.TB, c overlay.Claim) overlay.Lease {
	t.Helper()
	l, err := w.store.Claim(t.Context(), "", c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func subnet(text string) netip.Prefix { return netip.MustParsePrefix(text) }

// watcher collects the snapshots of one Watch.
type watcher struct {
	snaps chan overlay.Snapshot
}

func watch(t testing.TB, s *Store, network string) *watcher {
	w := &watcher{snaps: make(chan overlay.Snapshot, 1024)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx, network, func(snap overlay.Snapshot) { w.snaps <- snap }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v", err)
		}
	})
	return w
}

// await returns the first snapshot that fulfils the condition.
func (w *watcher) await(t testing.TB, what string, ok func(overlay.Snapshot) bool) overlay.Snapshot {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	var last overlay.Snapshot
	for {
		select {
		case last = <-w.snaps:
			if ok(last) {
				return last
			}
		case <-late.C:
			t.Fatalf("no snapshot with %s; the last was %+v", what, last)
		}
	}
}

// leases is a snapshot's leases and junk in short.
func leases(s overlay.Snapshot) string {
	var b strings.Builder
	for _, l := range s.Leases {
		fmt.Fprintf(&b, "%s %s\n", l.Subnet, l.PublicIP)
	}
	for _, j := range s.Junk {
		fmt.Fprintf(&b, "junk %s: %s\n", j.Key, j.Reason)
	}
	return b.String()
}

// fixed is an Initial that returns one text.
func fixed(text string) overlay.Initial {
	return func(map[string]overlay.Config) ([]byte, error) { return []byte(text), nil }
}

// says tells whether an error has all of the words.
func says(err error, words []string) bool {
	return err != nil && !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(err.Error(), word) })
}

// soonSays calls until an error has all of the words: a server takes a moment to
// start, and a call is short. No error may say a secret.
func soonSays(t *testing.T, what string, call func() error, words ...string) {
	t.Helper()
	err := call()
	for end := time.Now().Add(patience); !says(err, words) && time.Now().Before(end); {
		keepsSecrets(t, what, err)
		err = call()
	}
	mustSay(t, what, err, words...)
}

// mustSay checks an error's words, and that it says no secret.
func mustSay(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	t.Logf("%s: %v", what, err)
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %q is not in: %v", what, word, err)
		}
	}
	keepsSecrets(t, what, err)
}

// keepsSecrets checks that an error says no secret.
func keepsSecrets(t *testing.T, what string, err error) {
	t.Helper()
	for _, secret := range []string{"marker-secret", "PRIVATE KEY"} {
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %q is in: %v", what, secret, err)
		}
	}
}
