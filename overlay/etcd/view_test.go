package etcd

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// kvOf makes a key as etcd holds it.
func kvOf(key, value string, created, modified int64) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), CreateRevision: created, ModRevision: modified}
}

func event(typ mvccpb.Event_EventType, kv *mvccpb.KeyValue) clientv3.WatchResponse {
	return clientv3.WatchResponse{Events: []*clientv3.Event{{Type: typ, Kv: kv}}}
}

// Of leases that overlap the older is kept.
func TestViewOverlap(t *testing.T) {
	v := newView(keys{base: "/n"})
	v.reset(state{
		config: kvOf("/n/config", `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}`, 1, 1),
		subnets: []*mvccpb.KeyValue{
			kvOf("/n/subnets/10.5.1.0-24", valueOf(1), 7, 7),
			kvOf("/n/subnets/10.5.1.0-24&fd00:5:0:1::-64", valueOf(2), 5, 9),
			kvOf("/n/subnets/10.5.2.0-24&fd00:5:0:2::-64", valueOf(3), 8, 8),
			kvOf("/n/subnets/10.5.3.0-24&fd00:5:0:2::-64", valueOf(4), 6, 6),
			kvOf("/n/subnets/10.5.4.0-24", "junk", 2, 2),
		},
		revision: 9,
	})
	want := `10.5.1.0/24 192.168.0.2
10.5.3.0/24 192.168.0.4
junk /n/subnets/10.5.1.0-24: overlaps the older lease /n/subnets/10.5.1.0-24&fd00:5:0:1::-64 of host 192.168.0.2
junk /n/subnets/10.5.2.0-24&fd00:5:0:2::-64: overlaps the older lease /n/subnets/10.5.3.0-24&fd00:5:0:2::-64 of host 192.168.0.4
junk /n/subnets/10.5.4.0-24: not a lease's JSON: invalid character 'j' looking for beginning of value
`
	if got := leases(v.snapshot()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	v.apply(event(mvccpb.Event_DELETE, kvOf("/n/subnets/10.5.1.0-24&fd00:5:0:1::-64", "", 0, 10)))
	s := v.snapshot()
	if len(s.Leases) != 2 || s.Leases[0].PublicIP != host(1) || s.Revision != 10 {
		t.Errorf("after the older is gone: %s at revision %d", leases(s), s.Revision)
	}
}

// A view that took in changes one by one is the one that reads their outcome.
func TestViewChanges(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	configs := []string{
		`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}`,
		`{"Network":"10.5.0.0/16","SubnetMax":"10.5.5.0"}`,
	}
	names := []string{"-x", "/junk", "/10.5.1.0-25"}
	for i := range 8 {
		names = append(names, fmt.Sprintf("/10.5.%d.0-24", i), fmt.Sprintf("/10.5.%d.0-24&fd00:5:0:%d::-64", i, 1+i/2))
	}
	config := kvOf("/n/config", configs[0], 1, 1)
	now := map[string]*mvccpb.KeyValue{}
	v := newView(keys{base: "/n"})
	v.reset(state{config: config, revision: 1})
	for rev := int64(2); rev < 3000; rev++ {
		key := "/n/subnets" + names[rng.IntN(len(names))]
		switch old := now[key]; {
		case rng.IntN(20) == 0:
			config = kvOf("/n/config", configs[rng.IntN(2)], 1, rev)
			v.apply(event(mvccpb.Event_PUT, config))
		case old != nil && rng.IntN(2) == 0:
			delete(now, key)
			v.apply(event(mvccpb.Event_DELETE, kvOf(key, "", 0, rev)))
		default:
			value, created := valueOf(rng.IntN(4)+1), rev
			if rng.IntN(5) == 0 {
				value = "junk"
			}
			if old != nil {
				created = old.CreateRevision
			}
			now[key] = kvOf(key, value, created, rev)
			v.apply(event(mvccpb.Event_PUT, now[key]))
		}
		fresh := newView(keys{base: "/n"})
		st := state{config: config, revision: rev}
		for _, kv := range now {
			st.subnets = append(st.subnets, kv)
		}
		fresh.reset(st)
		got, want := v.snapshot(), fresh.snapshot()
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("revision %d:\n%s\nread anew:\n%s", rev, leases(got), leases(want))
		}
		for _, l := range got.Leases {
			if err := fits(got.Config, l); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// BenchmarkView is one change among 5,000 leases, and the snapshot after it.
func BenchmarkView(b *testing.B) {
	v := newView(keys{base: "/n"})
	st := state{config: kvOf("/n/config", `{"Network":"10.0.0.0/8","SubnetLen":24}`, 1, 1), revision: 2}
	cfg := parseConfig(b, string(st.config.Value))
	for i := range large {
		key := v.keys.lease(cfg.Subnet(i), netip.Prefix{})
		st.subnets = append(st.subnets, kvOf(key, valueOf(i), 2, 2))
	}
	v.reset(st)
	change := event(mvccpb.Event_PUT, kvOf(string(st.subnets[large/2].Key), valueOf(7), 2, 3))
	b.ReportAllocs()
	for b.Loop() {
		v.apply(change)
		if s := v.snapshot(); len(s.Leases) != large {
			b.Fatal(len(s.Leases))
		}
	}
}
