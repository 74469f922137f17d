package overlay_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/embedded"
	"github.com/docker-flannel/docker-flannel/overlay/etcd"
	"github.com/docker-flannel/docker-flannel/overlay/hostgw"
	"github.com/docker-flannel/docker-flannel/overlay/udp"
)

// The tests below run hosts on a real etcd, for what a Store in memory would
// not do to them.

const keys = "/coreos.com/network"

func realStore(t *testing.T) (*clientv3.Client, overlay.Store) {
	t.Helper()
	s := embedded.New(embedded.Options{Dir: t.TempDir(), Listen: "http://127.0.0.1:0"})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-ended:
		cancel()
		t.Fatal(err)
	}
	c, err := etcd.Dial(etcd.Options{Endpoints: []string{s.Endpoint()}, CallTimeout: 15 * time.Second})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := c.Close()
		cancel()
		if err := errors.Join(err, <-ended); err != nil {
			t.Error(err)
		}
	})
	return c, etcd.New(c, keys)
}

// await polls until a text that changes by itself has every part.
func await(t *testing.T, what string, text func() string, parts ...string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for {
		missing := ""
		now := text()
		for _, part := range parts {
			if !strings.Contains(now, part) {
				missing = part
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s lacks %q:\n%s", what, missing, now)
		}
	}
}

func dump(t *testing.T, c *clientv3.Client) func() string {
	return func() string {
		got, err := c.Get(context.Background(), keys, clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, kv := range got.Kvs {
			b.WriteString(string(kv.Key) + " " + string(kv.Value) + "\n")
		}
		return b.String()
	}
}

// pair is two hosts that know each other.
func pair(t *testing.T) (c *clientv3.Client, store overlay.Store, a, b *host, n, m overlay.Network) {
	t.Helper()
	c, store = realStore(t)
	a = start(t, store, newBoard("192.0.2.1"), t.TempDir())
	b = start(t, store, newBoard("192.0.2.2"), t.TempDir())
	n, m = a.network(t), b.network(t)
	await(t, "a's kernel", a.board.text, "route "+m.Subnet.String())
	await(t, "b's kernel", b.board.text, "route "+n.Subnet.String())
	return c, store, a, b, n, m
}

// TestConfigForOtherSubnets: somebody edits the config under running hosts.
func TestConfigForOtherSubnets(t *testing.T) {
	c, _, a, b, n, m := pair(t)
	for _, config := range []string{
		`{"Network":"10.5.0.0/16","SubnetLen":25,"Backend":{"Type":"vxlan"}}`,
		`{"Network":"10.66.0.0/16","Backend":{"Type":"vxlan"}}`,
	} {
		if _, err := c.Put(t.Context(), keys+"/config", config); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "a's log", a.log.String, "10.66.0.0/16")
	await(t, "b's log", b.log.String, "10.66.0.0/16")
	wantText(t, "etcd", dump(t, c)(), n.Subnet.Addr().String(), m.Subnet.Addr().String())
	wantText(t, "a's kernel", a.board.text(), "route "+m.Subnet.String())
	wantText(t, "b's kernel", b.board.text(), "route "+n.Subnet.String())
}

// TestWiped: everything in etcd is gone, and comes back by itself.
func TestWiped(t *testing.T) {
	c, _, a, b, n, m := pair(t)
	before := dump(t, c)()
	missed := []func() string{a.board.guard("route " + m.Subnet.String()), b.board.guard("route " + n.Subnet.String())}
	if _, err := c.Delete(t.Context(), "/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	await(t, "etcd", dump(t, c), strings.Split(strings.TrimSpace(before), "\n")[1:]...)
	await(t, "etcd", dump(t, c), `"Network":"10.5.0.0/16"`)
	await(t, "a's kernel", a.board.text, "route "+m.Subnet.String())
	await(t, "b's kernel", b.board.text, "route "+n.Subnet.String())
	for _, first := range missed {
		if text := first(); text != "" {
			t.Errorf("for a moment there was no route:\n%s", text)
		}
	}
}

// TestAddressChanges: a host comes up, or goes on, with another address.
func TestAddressChanges(t *testing.T) {
	c, store, a, b, n, _ := pair(t)
	a.stop()
	a = start(t, store, newBoard("192.0.2.9"), a.dir)
	await(t, "b's kernel", b.board.text, "dst 192.0.2.9", "route "+n.Subnet.String())
	a.board.move("192.0.2.10")
	await(t, "b's kernel", b.board.text, "dst 192.0.2.10")
	await(t, "a's kernel", a.board.text, "local 192.0.2.10")
	lacksText(t, "etcd", dump(t, c)(), `"192.0.2.1"`, `"192.0.2.9"`)
	a.remove(t, n)
	await(t, "etcd", func() string { // what takes long goes on when the call is over
		return fmt.Sprint("has the lease: ", strings.Contains(dump(t, c)(), n.Subnet.Addr().String()))
	}, "has the lease: false")
}

// TestSubnetChosenAnew: a host that holds a lease asks for another subnet.
func TestSubnetChosenAnew(t *testing.T) {
	c, store := realStore(t)
	a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
	n := a.network(t)
	want, stray := n.Subnet.Addr().As4(), n.Subnet.Addr().As4()
	want[2], stray[2] = want[2]%199+2, stray[2]%199+3 // two others that may be leased
	if _, err := c.Put(t.Context(), keys+"/subnets/"+prefix24(stray).Addr().String()+"-24", `{"PublicIP":"192.0.2.1","BackendType":"vxlan"}`); err != nil {
		t.Fatal(err)
	}
	a.remove(t, n)
	again, err := a.Acquire(t.Context(), overlay.Request{Subnet: prefix24(want)})
	if err != nil {
		t.Fatal(err)
	}
	if again.Subnet != prefix24(want) {
		t.Errorf("subnet %s", again.Subnet)
	}
	lacksText(t, "etcd", dump(t, c)(), n.Subnet.Addr().String()+"-24")
}

// TestPublicIPOfTwo: another host writes over this host's lease.
func TestPublicIPOfTwo(t *testing.T) {
	c, _, a, _, n, _ := pair(t)
	key := keys + "/subnets/" + n.Subnet.Addr().String() + "-24"
	if _, err := c.Put(t.Context(), key, `{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:66"}}`); err != nil {
		t.Fatal(err)
	}
	await(t, "a's log", a.log.String, "another host has the PublicIP 192.0.2.1 too", "02:00:00:00:00:66")
}

// TestAddressChangesSilently: the same where the backend publishes nothing that
// only this host has.
func TestAddressChangesSilently(t *testing.T) {
	for _, backend := range []string{"host-gw", "udp"} {
		t.Run(backend, func(t *testing.T) {
			c, store := realStore(t)
			with := map[string]overlay.Backend{udp.Type: &carrier{}, hostgw.Type: hostgw.Backend{}}
			a := startWith(t, store, newBoard("192.0.2.1"), t.TempDir(), fmt.Sprintf(`{"Type":%q}`, backend), with)
			n := a.network(t)
			a.board.move("192.0.2.9")
			key := "/subnets/" + n.Subnet.Addr().String() + `-24 {"PublicIP":"192.0.2.9"`
			await(t, "etcd", dump(t, c), key)
			lacksText(t, "etcd", dump(t, c)(), `"192.0.2.1"`)
			lacksText(t, "log", a.log.String(), "is leased to")
		})
	}
}

// TestConfigGetsIPv6: the config gets an IPv6 half under running hosts. They go on
// with IPv4, and follow hosts that come.
func TestConfigGetsIPv6(t *testing.T) {
	c, _, a, _, n, m := pair(t)
	const config = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`
	if _, err := c.Put(t.Context(), keys+"/config", config); err != nil {
		t.Fatal(err)
	}
	await(t, "a's log", a.log.String, "the config in the store has IPv6 now")
	late := n.Subnet.Addr().As4()
	if late[2] = late[2]%199 + 2; prefix24(late) == m.Subnet {
		late[2] += 50
	}
	key := keys + "/subnets/" + strings.TrimSuffix(prefix24(late).String(), "/24") + "-24&fd00:5:0:77::-64"
	lease := `{"PublicIP":"192.0.2.9","PublicIPv6":"2001:db8::9","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:0a"}}`
	if _, err := c.Put(t.Context(), key, lease); err != nil {
		t.Fatal(err)
	}
	await(t, "a's kernel", a.board.text, "route "+prefix24(late).String())
}
