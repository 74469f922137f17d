package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
)

// entryOf is a Docker network on a flannel network.
func entryOf(name, flannel, id string) blueprint.Entry {
	return blueprint.Entry{ID: id, Network: blueprint.Network{
		Name: name, Flannel: flannel, Subnets: []netip.Prefix{subnet("10.6.0.0/16")},
		Options: map[string]string{"com.docker.network.driver.mtu": "1400"}, Internal: true,
	}}
}

// listing is all entries in short, checked against each other.
func listing(t testing.TB, s *Store) string {
	t.Helper()
	all, err := s.Docker(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return short(all)
}

func short(all []blueprint.Entry) string {
	var b strings.Builder
	for _, e := range all {
		fmt.Fprintf(&b, "%s on %q: %s", e.Name, e.Flannel, e.ID)
		if e.Removed {
			b.WriteString(", removed")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func publish(t testing.TB, s *Store, e blueprint.Entry) {
	t.Helper()
	if done, err := s.Publish(t.Context(), e); err != nil || !done {
		t.Fatalf("publish %s: %v, %v", e.Name, done, err)
	}
}

// Of hosts that publish one name at once a single one does, and what it wrote is
// read as it was.
func testDockerPublish(t *testing.T, w *world) {
	var won atomic.Int32
	var g errgroup.Group
	for i := range 8 {
		s := w.newStore(t)
		g.Go(func() error {
			done, err := s.Publish(t.Context(), entryOf("a/b ü", "red", fmt.Sprint(i)))
			if done {
				won.Add(1)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil || won.Load() != 1 {
		t.Fatalf("%d have published it: %v", won.Load(), err)
	}
	all, err := w.store.Docker(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	e := all[0]
	if why := blueprint.Differs(e.Network, entryOf("a/b ü", "red", "").Network); why != "" || e.Name != "a/b ü" || e.Revision == 0 || !slices.Equal(e.Subnets, []netip.Prefix{subnet("10.6.0.0/16")}) {
		t.Errorf("read back as %+v: %s", e, why)
	}
	stale := e
	e.ID = "next"
	publish(t, w.store, e)
	if done, err := w.store.Publish(t.Context(), stale); err != nil || done {
		t.Errorf("written over what had changed: %v, %v", done, err)
	}
	// The other keys of the prefix are nobody's network.
	if all, err := w.store.Networks(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("flannel networks %v, %v", all, err)
	}
}

// What is used is not removed; nothing is removed by halves; a tombstone stays.
func testDockerRetire(t *testing.T, w *world) {
	for _, e := range []blueprint.Entry{entryOf("one", "red", "1"), entryOf("two", "red", "2"), entryOf("tw", "", "3")} {
		publish(t, w.store, e)
	}
	use := func(name string, i int, used bool) {
		t.Helper()
		p := blueprint.Here // which keeps nothing
		if used {
			p = blueprint.Used
		}
		if err := w.store.Note(t.Context(), name, host(i), p, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	use("two", 1, true)
	use("two", 1, true)
	use("two", 2, true)
	use("tw", 3, true)
	use("one", 1, false)
	before := listing(t, w.store)
	_, err := w.store.Retire(t.Context(), "red")
	if !errors.Is(err, ErrUsed) || !strings.Contains(err.Error(), "host 192.168.0.1 (Docker network two), host 192.168.0.2 (Docker network two)") {
		t.Fatalf("retired while used: %v", err)
	}
	if after := listing(t, w.store); after != before {
		t.Errorf("refused, and yet\n%s", after)
	}
	use("two", 1, false)
	use("two", 2, false)
	names, err := w.store.Retire(t.Context(), "red")
	if err != nil || !slices.Equal(names, []string{"one", "two"}) {
		t.Fatalf("retired %v, %v", names, err)
	}
	if got, want := listing(t, w.store), "one on \"red\": 1, removed\ntw on \"\": 3\ntwo on \"red\": 2, removed\n"; got != want {
		t.Errorf("now\n%s", got)
	}
	if names, err := w.store.Retire(t.Context(), "red"); err != nil || len(names) != 0 {
		t.Errorf("again: %v, %v", names, err)
	}
	w.checkLeases(t)
}

// The entry goes with the last host that has the network, whoever that is, and no
// other one's.
func testDockerLeave(t *testing.T, w *world) {
	publish(t, w.store, entryOf("blue", "", "1"))
	publish(t, w.store, entryOf("blu", "", "2"))
	all, err := w.store.Docker(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blu, blue := all[0], all[1]
	for i, p := range []blueprint.Presence{blueprint.Here, blueprint.Used, blueprint.Here} {
		if err := w.store.Note(t.Context(), "blue", host(i), p, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	leave := func(e blueprint.Entry, i int, want string) {
		t.Helper()
		if err := w.store.Leave(t.Context(), e, host(i)); err != nil {
			t.Fatal(err)
		}
		if got := listing(t, w.store); got != want {
			t.Errorf("host %d has left %s, and there are\n%s", i, e.Name, got)
		}
	}
	const both = "blu on \"\": 2\nblue on \"\": 1\n"
	leave(blue, 0, both)
	leave(blue, 0, both)
	var g errgroup.Group
	for i := 1; i < 3; i++ {
		s := w.newStore(t)
		g.Go(func() error { return s.Leave(t.Context(), blue, host(i)) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, w.store); got != "blu on \"\": 2\n" {
		t.Errorf("all have left, and there are\n%s", got)
	}
	blu.Revision--
	leave(blu, 1, "blu on \"\": 2\n") // it has changed
	w.checkLeases(t)
}

// A note ends with its time to live, is renewed, and is written again when lost.
func testDockerUse(t *testing.T, w *world) {
	key := "/.docker-use/blue/" + host(1).String()
	use := func() {
		t.Helper()
		if err := w.store.Note(t.Context(), "blue", host(1), blueprint.Used, time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, leased := w.value(t, key); !leased {
			t.Error("the note is there for ever")
		}
	}
	use()
	first := w.modified(t, key)
	use()
	if w.modified(t, key) != first {
		t.Error("a renewal wrote the key")
	}
	if _, err := w.client.Revoke(t.Context(), w.etcdLease(t, key)); err != nil {
		t.Fatal(err)
	}
	use()
	w.put(t, key, "by hand") // without an etcd lease
	use()
	for _, p := range []blueprint.Presence{blueprint.Here, blueprint.Gone} {
		if err := w.store.Note(t.Context(), "blue", host(1), p, time.Hour); err != nil {
			t.Fatal(err)
		}
		if got, _ := w.value(t, key); got != "" {
			t.Errorf("left: %s", got)
		}
	}
	if got, _ := w.value(t, "/.docker-here/blue/"+host(1).String()); got != "" {
		t.Errorf("left: %s", got)
	}
}

// Watchers learn of everything that is written, of junk nothing, and of a wiped
// etcd that it is empty.
func testDockerWatch(t *testing.T, w *world) {
	w.put(t, "/.docker/junk", "{")
	w.put(t, "/.docker/lie", `{"Name":"other","ID":"1"}`)
	w.put(t, "/.docker/nameless", `{"Name":"nameless"}`)
	w.put(t, "/.docker/odd", `{"Name":"odd","ID":"1","Flannel":"a/b"}`)
	seen := make(chan string, 64)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- w.newStore(t).WatchDocker(ctx, func(all []blueprint.Entry) { seen <- short(all) })
	}()
	await := func(want string) {
		t.Helper()
		late := time.After(patience)
		for last := ""; ; {
			select {
			case last = <-seen:
				if last == want {
					return
				}
			case <-late:
				t.Fatalf("last seen\n%s\nwant\n%s", last, want)
			}
		}
	}
	await("")
	publish(t, w.store, entryOf("blue", "", "1"))
	await("blue on \"\": 1\n")
	publish(t, w.store, entryOf("config", "red", "2"))
	await("blue on \"\": 1\nconfig on \"red\": 2\n")
	if _, err := w.store.Retire(t.Context(), "red"); err != nil {
		t.Fatal(err)
	}
	await("blue on \"\": 1\nconfig on \"red\": 2, removed\n")
	if _, err := w.client.Delete(t.Context(), w.prefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	await("")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("WatchDocker returned %v", err)
	}
}
