package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/network"
	api "github.com/docker/go-plugins-helpers/ipam"

	clerk "github.com/docker-flannel/docker-flannel/ipam"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// daemon is an engine that knows some networks and, by id, their endpoints'
// addresses: one, or an IPv4 and an IPv6 one with a comma between.
type daemon struct {
	networks map[string]map[string]string
	down     error
	stranger bool // runs other plugins
}

func (d *daemon) PluginInspectWithRaw(_ context.Context, name string) (*types.Plugin, []byte, error) {
	if d.stranger {
		return nil, nil, fmt.Errorf("plugin %s: %w", name, errdefs.ErrNotFound)
	}
	return &types.Plugin{ID: name}, nil, d.down
}

func (d *daemon) NetworkInspect(_ context.Context, id string, _ network.InspectOptions) (network.Inspect, error) {
	if d.down != nil {
		return network.Inspect{}, d.down
	}
	known, ok := d.networks[id]
	if !ok {
		return network.Inspect{}, fmt.Errorf("network %s: %w", id, errdefs.ErrNotFound)
	}
	found := network.Inspect{ID: id, Containers: map[string]network.EndpointResource{}}
	for endpoint, addr := range known {
		four, six, _ := strings.Cut(addr, ",")
		found.Containers["c"+endpoint] = network.EndpointResource{EndpointID: endpoint, IPv4Address: four, IPv6Address: six}
	}
	return found, nil
}

// ledger is the books of both clerks' rooms.
type ledger struct {
	attached []overlay.Attachment
	held     map[netip.Prefix][]clerk.Holding
	asked    time.Time // of every address
	next     func()    // what the engine does as soon as a network is gone
}

func (l *ledger) Attachments() []overlay.Attachment           { return slices.Clone(l.attached) }
func (l *ledger) Addresses() map[netip.Prefix][]clerk.Holding { return l.held }
func (l *ledger) ReleasePool(context.Context, *api.ReleasePoolRequest) error {
	l.held = nil
	return nil
}

func (l *ledger) RemovePort(_ context.Context, _, endpoint string) error {
	a := &l.attached[0]
	a.Ports = slices.DeleteFunc(slices.Clone(a.Ports), func(p overlay.Port) bool { return p.Endpoint == endpoint })
	return nil
}

func (l *ledger) Detach(context.Context, string) error {
	l.attached = nil
	if l.next != nil {
		l.next()
	}
	return nil
}

func (l *ledger) Reclaim(subnet netip.Prefix, h clerk.Holding, unasked time.Time) (bool, error) {
	if l.asked.After(unasked) {
		return false, nil
	}
	l.held[subnet] = slices.DeleteFunc(slices.Clone(l.held[subnet]), func(o clerk.Holding) bool { return o == h })
	return true, nil
}

func (l *ledger) text() string {
	text := ""
	for _, a := range l.attached {
		text += a.ID
		for _, p := range a.Ports {
			text += " " + p.Endpoint
		}
	}
	for _, held := range l.held {
		text += ":"
		for _, h := range held {
			text += " " + h.Addr.String()
		}
	}
	return text
}

// Both addresses of a container are known as its own, and go with it.
func TestSweepIPv6(t *testing.T) {
	four, six := netip.MustParsePrefix("10.5.7.0/24"), netip.MustParsePrefix("fd00:5:0:7::/64")
	held := func(addrs ...string) (list []clerk.Holding) {
		for _, a := range addrs {
			list = append(list, clerk.Holding{Addr: netip.MustParseAddr(a), Owner: "02:42:00:00:00:02"})
		}
		return list
	}
	books := &ledger{
		attached: []overlay.Attachment{{
			Bridge: overlay.Bridge{ID: "net", Subnet: four, IPv6Subnet: six},
			Ports: []overlay.Port{
				{Network: "net", Endpoint: "ep2", Addr: netip.MustParseAddr("10.5.7.2"), IPv6: netip.MustParseAddr("fd00:5:0:7::2")},
				{Network: "net", Endpoint: "ep3", Addr: netip.MustParseAddr("10.5.7.3"), IPv6: netip.MustParseAddr("fd00:5:0:7::3")},
			},
		}},
		held: map[netip.Prefix][]clerk.Holding{
			four: held("10.5.7.2", "10.5.7.3", "10.5.7.4"), six: held("fd00:5:0:7::2", "fd00:5:0:7::3", "fd00:5:0:7::4", "fd00:5:0:7::5"),
		},
	}
	// The engine knows ep2, and a container that has no endpoint of ours yet.
	eng := &daemon{networks: map[string]map[string]string{"net": {"ep2": "10.5.7.2/24,fd00:5:0:7::2/64", "ep4": "10.5.7.4/24,fd00:5:0:7::4/64"}}}
	s := sweeper{engine: eng, overlay: books, ipam: books, self: "id", log: slog.New(slog.DiscardHandler)}
	for i := range 2 {
		s.round(t.Context(), time.Now().Add(time.Duration(i)*sweepEvery))
	}
	want := map[netip.Prefix][]clerk.Holding{four: held("10.5.7.2", "10.5.7.4"), six: held("fd00:5:0:7::2", "fd00:5:0:7::4")}
	if fmt.Sprint(books.held) != fmt.Sprint(want) || len(books.attached[0].Ports) != 1 {
		t.Errorf("held %v, want %v; ports %v", books.held, want, books.attached[0].Ports)
	}
}

func TestSweep(t *testing.T) {
	subnet := netip.MustParsePrefix("10.5.7.0/24")
	port := func(endpoint string, last byte) overlay.Port {
		return overlay.Port{Network: "net", Endpoint: endpoint, Addr: netip.AddrFrom4([4]byte{10, 5, 7, last}), MAC: kernel.MAC{2, 0, 0, 0, 0, last}}
	}
	holding := func(last byte, owner string) clerk.Holding {
		return clerk.Holding{Addr: netip.AddrFrom4([4]byte{10, 5, 7, last}), Owner: owner}
	}
	// The engine knows ep2 and has, without an endpoint of ours yet, .4; .3 is
	// of an endpoint that is gone, .5 of nobody, .9 an --aux-address.
	all := "net ep2 ep3: 10.5.7.2 10.5.7.3 10.5.7.4 10.5.7.5 10.5.7.9"
	for _, c := range []struct {
		name  string
		twice func(d *daemon, l *ledger) // between the two rounds
		want  string
	}{
		{"forgotten", func(*daemon, *ledger) {}, "net ep2: 10.5.7.2 10.5.7.4 10.5.7.9"},
		{"shown later", func(d *daemon, _ *ledger) {
			d.networks["net"]["ep3"], d.networks["net"]["ep5"] = "10.5.7.3/24", "10.5.7.5/24"
		}, all},
		{"asked for meanwhile", func(_ *daemon, l *ledger) { l.asked = time.Now().Add(time.Hour) }, "net ep2: 10.5.7.2 10.5.7.3 10.5.7.4 10.5.7.5 10.5.7.9"},
		{"engine silent", func(d *daemon, _ *ledger) { d.down = errors.New("no answer") }, all},
		{"network gone for a moment", func(d *daemon, _ *ledger) { delete(d.networks, "net") }, all},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &daemon{networks: map[string]map[string]string{"net": {"ep2": "10.5.7.2/24", "ep4": "10.5.7.4/24"}}}
			l := &ledger{
				attached: []overlay.Attachment{{Bridge: overlay.Bridge{ID: "net", Subnet: subnet}, Ports: []overlay.Port{port("ep2", 2), port("ep3", 3)}}},
				held:     map[netip.Prefix][]clerk.Holding{subnet: {holding(2, "m2"), holding(3, "m3"), holding(4, "m4"), holding(5, "m5"), holding(9, "")}},
			}
			s := &sweeper{engine: d, overlay: l, ipam: l, self: "me", log: slog.New(slog.DiscardHandler)}
			s.round(t.Context(), time.Now())
			if got := l.text(); got != all {
				t.Fatalf("after one look: %s", got)
			}
			c.twice(d, l)
			s.round(t.Context(), time.Now())
			if got := l.text(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	t.Run("network gone and made anew", func(t *testing.T) {
		l := &ledger{attached: []overlay.Attachment{{Bridge: overlay.Bridge{ID: "net", Subnet: subnet}}}}
		l.next = func() {
			l.attached = []overlay.Attachment{{Bridge: overlay.Bridge{ID: "new", Subnet: subnet}}}
			l.held = map[netip.Prefix][]clerk.Holding{subnet: {holding(9, "")}}
		}
		s := &sweeper{engine: &daemon{networks: map[string]map[string]string{"new": {}}}, overlay: l, ipam: l, self: "me", log: slog.New(slog.DiscardHandler)}
		for range 2 {
			s.round(t.Context(), time.Now())
		}
		if got := l.text(); got != "new: 10.5.7.9" {
			t.Errorf("left: %s", got)
		}
	})
	t.Run("network gone", func(t *testing.T) {
		l := &ledger{attached: []overlay.Attachment{{Bridge: overlay.Bridge{ID: "net", Subnet: subnet}}}}
		s := &sweeper{engine: &daemon{}, overlay: l, ipam: l, self: "me", log: slog.New(slog.DiscardHandler)}
		for range 2 {
			s.round(t.Context(), time.Now())
		}
		if got := l.text(); got != "" {
			t.Errorf("left: %s", got)
		}
	})
}

// TestSweepStranger leaves all as it is where another engine answers.
func TestSweepStranger(t *testing.T) {
	subnet := netip.MustParsePrefix("10.5.7.0/24")
	l := &ledger{attached: []overlay.Attachment{{Bridge: overlay.Bridge{ID: "net", Subnet: subnet}}}}
	var log bytes.Buffer
	s := &sweeper{engine: &daemon{stranger: true}, overlay: l, ipam: l, self: "me", log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 3 {
		s.round(t.Context(), time.Now())
	}
	if got := l.text(); got != "net" {
		t.Errorf("left: %q", got)
	}
	if n := strings.Count(log.String(), "run.source"); n != 2 { // one line names it twice
		t.Errorf("log:\n%s", log.String())
	}
}

func TestPluginID(t *testing.T) {
	id := strings.Repeat("0a", 32)
	table := "36 35 0:31 / / rw - overlay overlay rw\n" +
		"40 36 8:1 /var/lib/docker/plugins/" + id + "/propagated-mount /data rw shared:1 - ext4 /dev/sda1 rw\n"
	if got := pluginID(table, "/data"); got != id {
		t.Errorf("id %q", got)
	}
	if got := pluginID(table, "/"); got != "" {
		t.Errorf("id %q of a mount that is none of a plugin's", got)
	}
}
