package etcd

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// FuzzView puts any keys and values into etcd: a view that takes them in one by
// one is the one that reads them all, its leases fit its config and each other,
// and a host finds its subnet among them.
func FuzzView(f *testing.F) {
	const config = `{"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}`
	f.Add(config, "/10.5.7.0-24", valueOf(1), "/10.5.8.0-24", valueOf(2))
	f.Add(config, "/10.5.7.0-24", valueOf(1), "/10.5.7.0-24&fd00:5:0:1::-64", valueOf(1))
	f.Add(config, "-x", "junk", "/10.5.0.0-16", `{"PublicIP":"192.168.0.1"}`)
	f.Add(`{"EnableIPv6":true,"Network":"10.5.0.0/28","IPv6Network":"fd00:5::/48"}`, "/0.0.0.0-0", valueOf(3), "/10.5.0.4-30&fd00:5:0:1::-64", `null`)
	f.Add(`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48"}`, "/10.5.1.0-24&fd00:5:0:1::-64", valueOf(1), "", "")
	f.Add(`{"EnableIPv6":true,"Network":"10.0.0.0/8","SubnetLen":30,"IPv6Network":"fd00::/8","IPv6SubnetLen":126}`, "/10.5.1.0-24&::-0", valueOf(1), "", "")
	f.Add(`nonsense`, "/10.5.7.0-24", valueOf(1), "/10.5.8.0-24", valueOf(2))
	f.Fuzz(func(t *testing.T, config, key1, value1, key2, value2 string) {
		k := keys{base: "/n"}
		st := state{config: kvOf("/n/config", config, 1, 1), revision: 3}
		grown := newView(k)
		grown.reset(state{config: st.config, revision: 1})
		puts := []*mvccpb.KeyValue{kvOf("/n/subnets"+key1, value1, 2, 2), kvOf("/n/subnets"+key2, value2, 3, 3)}
		if key1 == key2 {
			puts = puts[:1]
			st.revision = 2
		}
		var all []held
		for _, kv := range puts {
			st.subnets = append(st.subnets, kv)
			grown.apply(event(mvccpb.Event_PUT, kv))
			if h, err := decodeHeld(k, kv); err == nil {
				all = append(all, h)
			}
		}
		fresh := newView(k)
		fresh.reset(st)
		s := fresh.snapshot()
		if got := grown.snapshot(); !reflect.DeepEqual(got, s) {
			t.Errorf("change by change\n%sread anew\n%s", leases(got), leases(s))
		}
		for i, l := range s.Leases {
			if err := fits(s.Config, l); err != nil || !l.PublicIP.Is4() || i > 0 && overlap(l, s.Leases[i-1]) {
				t.Errorf("%v: %v", s.Leases, err)
			}
		}
		if s.Configured {
			claimAmong(t, s.Config, all, claimOf(1))
			if s.Config.EnableIPv6 {
				claimAmong(t, s.Config, all, dualOf(1))
			}
		}
	})
}

// claimAmong lets host 1 claim a subnet.
func claimAmong(t *testing.T, cfg overlay.Config, all []held, claim overlay.Claim) {
	t.Helper()
	d, err := decide(t.Context(), cfg, all, claim)
	switch {
	case err != nil:
		if cfg.EnableIPv4 && !errors.Is(err, overlay.ErrFull) {
			t.Error(err)
		}
	case d.keep != nil:
		if err := fits(cfg, d.keep.lease); err != nil || d.keep.lease.PublicIP != host(1) {
			t.Errorf("keeps %+v: %v", d.keep, err)
		}
	case d.create.subnet.IsValid():
		for _, p := range []netip.Prefix{d.create.subnet, d.create.ipv6} {
			if err := cfg.Fits(p); p.IsValid() && (err != nil || holder(all, p) != nil) {
				t.Errorf("creates %s: %v", p, err)
			}
		}
		if d.create.ipv6.IsValid() != claim.IPv6 {
			t.Errorf("creates %+v", d.create)
		}
	case len(d.drop) == 0:
		t.Error("no decision")
	}
}

// FuzzKeys wants that no network's keys are another's, and that flanneld takes
// none of them for a lease of the default network.
func FuzzKeys(f *testing.F) {
	f.Add("/coreos.com/network", "blue")
	f.Add("/", "subnets-x")
	f.Add("/net", "..")
	f.Add("", "a/b")
	f.Fuzz(func(t *testing.T, prefix, network string) {
		k, err := newKeys(prefix, network)
		if err != nil {
			return
		}
		whole, err := newKeys(prefix, "")
		if err != nil {
			t.Fatal(err)
		}
		if network != "" && (k.config() == whole.config() || strings.HasPrefix(k.config(), whole.subnets()) || strings.HasPrefix(k.subnets(), whole.subnets())) {
			t.Errorf("%q %q: %s, %s", prefix, network, k.config(), k.subnets())
		}
		subnet := netip.MustParsePrefix("10.5.7.0/24")
		if again, _, err := k.parseLease(k.lease(subnet, netip.Prefix{})); err != nil || again != subnet {
			t.Errorf("%q %q: %s, %v", prefix, network, again, err)
		}
	})
}

// FuzzEndpoints wants that what is accepted makes a client, and that no error
// tells a password.
func FuzzEndpoints(f *testing.F) {
	f.Add("http://10.0.0.1:2379", "https://etcd:2379")
	f.Add("10.0.0.1:2379", "unix:///run/etcd.sock")
	f.Add("http://root:s3cret@10.0.0.1:2379", "")
	f.Add("http://[fd00::1", "%zz")
	f.Add("0#://root:s3cret@10.0.0.1", "")
	f.Add("http://10.0.0.1:2379", "https://10.0.0.2:2379#root:s3cret@")
	f.Fuzz(func(t *testing.T, one, two string) {
		endpoints := []string{one, two}
		if _, err := checkEndpoints(endpoints); err != nil {
			for _, e := range endpoints {
				if before, _, ok := strings.Cut(e, "@"); ok && strings.Contains(before, "s3cret") && strings.Contains(err.Error(), "s3cret") &&
					!strings.Contains(strings.ReplaceAll(one+two, e, ""), "s3cret") {
					t.Error(err)
				}
			}
			return
		}
		client, err := Dial(Options{Endpoints: endpoints})
		if err != nil {
			t.Fatalf("%q: %v", endpoints, err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzEntry reads shared Docker networks: what is accepted is written as it was
// read, under its own key, and names a flannel network that can be.
func FuzzEntry(f *testing.F) {
	f.Add("blue", `{"Name":"blue","Flannel":"red","ID":"1","Subnets":["10.6.0.0/16"],"Options":{"a":"b"}}`)
	f.Add("a%2Fb", `{"Name":"a/b","ID":"1","Removed":true}`)
	f.Add("x", `{"Name":"y","ID":"1"}`)
	f.Add("", `null`)
	f.Add("z", `{"Name":"z","ID":"1","Flannel":"subnets"}`)
	s := &Store{prefix: "/p"}
	f.Fuzz(func(t *testing.T, name, value string) {
		e, err := decodeEntry(name, []byte(value))
		if err != nil {
			return
		}
		if s.dockerKey(e.Name) != s.dockerKeys()+name || e.ID == "" || e.Flannel != "" && overlay.CheckName(e.Flannel) != nil {
			t.Errorf("%s: %+v", name, e)
		}
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeEntry(name, text)
		if err != nil || again.ID != e.ID || again.Removed != e.Removed || blueprint.Differs(again.Network, e.Network) != "" {
			t.Errorf("%s: %s became %+v: %v", name, value, again, err)
		}
	})
}
