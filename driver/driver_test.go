package driver

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

const (
	netID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	endID = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
)

// nets remembers what the clerk asked of it.
type nets struct {
	bridge overlay.Bridge
	port   overlay.Port
	ports  []overlay.Publish
	out    netip.Addr // the default gateway
	err    error
}

func (n *nets) Publish(_ context.Context, _, _ string, asked []overlay.Publish) error {
	n.ports = asked
	return n.err
}
func (n *nets) Attach(_ context.Context, b overlay.Bridge) error { n.bridge = b; return n.err }
func (n *nets) Detach(context.Context, string) error             { return n.err }
func (n *nets) AddPort(_ context.Context, p overlay.Port) error  { n.port = p; return n.err }
func (n *nets) RemovePort(context.Context, string, string) error { return n.err }
func (n *nets) Join(context.Context, string, string) (overlay.Joined, error) {
	return overlay.Joined{Interface: "flpfedcba987654", Gateway: n.out, IPv6: n.port.IPv6.IsValid(), Network: overlay.Network{
		CIDR: netip.MustParsePrefix("10.5.0.0/16"), Gateway: netip.MustParseAddr("10.5.7.1"),
		IPv6CIDR: netip.MustParsePrefix("fd00:5::/48"), IPv6Subnet: netip.MustParsePrefix("fd00:5:0:7::/64"),
	}}, n.err
}

// handed is where these addresses are handed out.
type handed []netip.Addr

func (h handed) Held(addr netip.Addr) bool { return slices.Contains(h, addr) }

var nine = handed{netip.MustParseAddr("10.5.7.9")}

func create(t *testing.T, options, pool string, pools6 ...string) (*nets, error) {
	t.Helper()
	req := &network.CreateNetworkRequest{NetworkID: netID}
	if err := json.Unmarshal([]byte(options), &req.Options); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(pool), &req.IPv4Data); err != nil {
		t.Fatal(err)
	}
	for _, six := range pools6 {
		if err := json.Unmarshal([]byte(six), &req.IPv6Data); err != nil {
			t.Fatal(err)
		}
	}
	n := &nets{}
	return n, New(n, n, nine).CreateNetwork(t.Context(), req)
}

const lease = `[{"AddressSpace":"flannel","Pool":"10.5.7.0/24","Gateway":"10.5.7.1/24"}]`

func TestCreateNetwork(t *testing.T) {
	n, err := create(t, `{"com.docker.network.enable_ipv6":false,"com.docker.network.internal":true,
		"com.docker.network.generic":{"com.docker.network.driver.mtu":"1400"}}`, lease)
	if err != nil {
		t.Fatal(err)
	}
	want := overlay.Bridge{ID: netID, Subnet: netip.MustParsePrefix("10.5.7.0/24"), MTU: 1400, Internal: true}
	if n.bridge != want {
		t.Errorf("attached %+v, want %+v", n.bridge, want)
	}
}

func TestCreateNetworkIPv6(t *testing.T) {
	const enabled = `{"com.docker.network.enable_ipv6":true}`
	n, err := create(t, enabled, lease, `[{"AddressSpace":"flannel","Pool":"fd00:5:0:7::/64","Gateway":"fd00:5:0:7::1/64"}]`)
	if err != nil {
		t.Fatal(err)
	}
	want := overlay.Bridge{ID: netID, Subnet: netip.MustParsePrefix("10.5.7.0/24"), IPv6Subnet: netip.MustParsePrefix("fd00:5:0:7::/64")}
	if n.bridge != want {
		t.Errorf("attached %+v, want %+v", n.bridge, want)
	}
	for pools, says := range map[string]string{
		`[]`: "--ipv6 --subnet fd00:5::/48",
		`[{"AddressSpace":"LocalDefault","Pool":"fd00:9::/64"}]`:  "--ipam-driver flannel",
		`[{"AddressSpace":"flannel"},{"AddressSpace":"flannel"}]`: "2 IPv6 pools",
	} {
		if n, err := create(t, enabled, lease, pools); err == nil || !strings.Contains(err.Error(), says) || (n.bridge != overlay.Bridge{}) {
			t.Errorf("%s: error %v, want one with %q; attached %+v", pools, err, says, n.bridge)
		}
	}
}

func TestGatewayOptions(t *testing.T) {
	for options, want := range map[string]overlay.Bridge{
		`{"gateway":"docker"}`:                    {},
		`{"gateway":"flannel"}`:                   {Gateway: true},
		`{"gateway":"flannel","ip-masq":"true"}`:  {Gateway: true},
		`{"gateway":"flannel","ip-masq":"false"}`: {Gateway: true, NoMasq: true},
	} {
		n, err := create(t, `{"com.docker.network.generic":`+options+`}`, lease)
		if err != nil {
			t.Fatal(err)
		}
		want.ID, want.Subnet = netID, netip.MustParsePrefix("10.5.7.0/24")
		if n.bridge != want {
			t.Errorf("%s attached %+v, want %+v", options, n.bridge, want)
		}
	}
}

func TestCreateNetworkRefuses(t *testing.T) {
	for _, c := range []struct{ name, options, pool, says string }{
		{"default addresses", `{}`, `[{"AddressSpace":"LocalDefault","Pool":"172.18.0.0/16"}]`, "docker network create -d flannel --ipam-driver flannel"},
		{"no pool", `{}`, `[]`, "0 IPv4 pools"},
		{"null pool", `{}`, `[null]`, "--ipam-driver flannel"},
		{"junk pool", `{}`, `[{"AddressSpace":"flannel","Pool":"x"}]`, `"x"`},
		{"junk ipv6", `{"com.docker.network.enable_ipv6":"yes"}`, lease, "enable_ipv6=yes"},
		{"junk ipv4", `{"com.docker.network.enable_ipv4":0}`, lease, "enable_ipv4=0"},
		{"no ipv4", `{"com.docker.network.enable_ipv4":false}`, lease, "--ipv4=false"},
		{"unknown option", `{"com.docker.network.generic":{"color":"red"}}`, lease, "-o color=red"},
		{"small mtu", `{"com.docker.network.generic":{"com.docker.network.driver.mtu":"7"}}`, lease, "mtu=7"},
		{"junk mtu", `{"com.docker.network.generic":{"com.docker.network.driver.mtu":"big"}}`, lease, "mtu=big"},
		{"junk gateway", `{"com.docker.network.generic":{"gateway":"10.5.7.1"}}`, lease, "-o gateway=10.5.7.1: give docker"},
		{"junk ip-masq", `{"com.docker.network.generic":{"gateway":"flannel","ip-masq":"no"}}`, lease, "-o ip-masq=no: give true or false"},
		{"ip-masq of docker_gwbridge", `{"com.docker.network.generic":{"ip-masq":"false"}}`, lease, "-o gateway=flannel"},
		{"junk internal", `{"com.docker.network.internal":1}`, lease, "internal=1"},
		{"all that is accepted", `{"com.docker.network.generic":{"color":"red"}}`, lease, "com.docker.network.driver.mtu=BYTES, gateway=docker|flannel, ip-masq=true|false"},
		{"number as option", `{"com.docker.network.generic":{"a":1}}`, lease, "-o a=1"},
		{"list of options", `{"com.docker.network.generic":[]}`, lease, "generic"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := create(t, c.options, c.pool)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one with %q", err, c.says)
			}
			if (n.bridge != overlay.Bridge{}) {
				t.Errorf("attached %+v", n.bridge)
			}
		})
	}
}

func TestCreateEndpoint(t *testing.T) {
	for _, c := range []struct {
		name   string
		iface  network.EndpointInterface
		answer network.EndpointInterface
		mac    string
	}{
		{"the engine's MAC", network.EndpointInterface{Address: "10.5.7.9/24", MacAddress: "02:42:AC:11:00:02"}, network.EndpointInterface{}, "02:42:ac:11:00:02"},
		{"no MAC", network.EndpointInterface{Address: "10.5.7.9/24"}, network.EndpointInterface{MacAddress: "02:42:0a:05:07:09"}, "02:42:0a:05:07:09"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &nets{}
			res, err := New(n, n, nine).CreateEndpoint(t.Context(), &network.CreateEndpointRequest{NetworkID: netID, EndpointID: endID, Interface: &c.iface})
			if err != nil {
				t.Fatal(err)
			}
			if *res.Interface != c.answer {
				t.Errorf("answer %+v, want %+v", *res.Interface, c.answer)
			}
			mac, err := kernel.ParseMAC(c.mac)
			if err != nil {
				t.Fatal(err)
			}
			if want := (overlay.Port{Network: netID, Endpoint: endID, Addr: netip.MustParseAddr("10.5.7.9"), MAC: mac}); n.port != want {
				t.Errorf("port %+v, want %+v", n.port, want)
			}
		})
	}
}

func TestCreateEndpointRefuses(t *testing.T) {
	for name, iface := range map[string]*network.EndpointInterface{
		"nothing":      nil,
		"no address":   {},
		"junk address": {Address: "10.5.7"},
		"ipv6":         {Address: "fd00::1/64"},
		"not given":    {Address: "10.5.7.10/24"},
		"junk ipv6":    {Address: "10.5.7.9/24", AddressIPv6: "10.5.7.9/24"},
		"ipv6 no one":  {Address: "10.5.7.9/24", AddressIPv6: "fd00:5:0:7::9/64"},
		"junk mac":     {Address: "10.5.7.9/24", MacAddress: "zz"},
	} {
		n := &nets{}
		req := &network.CreateEndpointRequest{NetworkID: netID, EndpointID: endID, Interface: iface}
		if _, err := New(n, n, nine).CreateEndpoint(t.Context(), req); err == nil || (n.port != overlay.Port{}) {
			t.Errorf("%s: error %v, port %+v", name, err, n.port)
		}
	}
}

func TestEndpointIPv6(t *testing.T) {
	n, addrs := &nets{}, append(handed{netip.MustParseAddr("fd00:5:0:7::9")}, nine...)
	req := &network.CreateEndpointRequest{
		NetworkID: netID, EndpointID: endID,
		Interface: &network.EndpointInterface{Address: "10.5.7.9/24", AddressIPv6: "fd00:5:0:7::9/64", MacAddress: "02:42:0a:05:07:09"},
	}
	if _, err := New(n, n, addrs).CreateEndpoint(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if n.port.IPv6 != netip.MustParseAddr("fd00:5:0:7::9") {
		t.Errorf("port %+v", n.port)
	}
	res, err := New(n, n, addrs).Join(t.Context(), &network.JoinRequest{NetworkID: netID, EndpointID: endID})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.StaticRoutes) != 2 || *res.StaticRoutes[1] != (network.StaticRoute{Destination: "fd00:5::/48", NextHop: "fd00:5:0:7::1"}) {
		t.Errorf("answer %+v", res)
	}
	if res.Gateway != "" || res.GatewayIPv6 != "" {
		t.Errorf("answer %+v has a gateway", res)
	}
}

func TestJoin(t *testing.T) {
	res, err := New(&nets{}, &nets{}, nine).Join(t.Context(), &network.JoinRequest{NetworkID: netID, EndpointID: endID})
	if err != nil {
		t.Fatal(err)
	}
	want := &network.JoinResponse{
		InterfaceName: network.InterfaceName{SrcName: "flpfedcba987654", DstPrefix: "eth"},
		StaticRoutes:  []*network.StaticRoute{{Destination: "10.5.0.0/16", RouteType: 0, NextHop: "10.5.7.1"}},
	}
	if !reflect.DeepEqual(res, want) {
		t.Errorf("answer %+v, want %+v", res, want)
	}
}

func TestJoinWithGateway(t *testing.T) {
	n := &nets{out: netip.MustParseAddr("10.5.7.1")}
	res, err := New(n, n, nine).Join(t.Context(), &network.JoinRequest{NetworkID: netID, EndpointID: endID})
	if err != nil || res.Gateway != "10.5.7.1" || len(res.StaticRoutes) != 1 {
		t.Errorf("answer %+v, %v", res, err)
	}
}

func TestIDsAreChecked(t *testing.T) {
	c, ctx := New(&nets{}, &nets{}, nine), t.Context()
	for _, id := range []string{"", "short", "../../../../etc/passwd", strings.Repeat("a", 65), "0123456789ABCDEF"} {
		calls := map[string]error{
			"CreateNetwork":  c.CreateNetwork(ctx, &network.CreateNetworkRequest{NetworkID: id}),
			"DeleteNetwork":  c.DeleteNetwork(ctx, &network.DeleteNetworkRequest{NetworkID: id}),
			"DeleteEndpoint": c.DeleteEndpoint(ctx, &network.DeleteEndpointRequest{NetworkID: netID, EndpointID: id}),
			"Leave":          c.Leave(ctx, &network.LeaveRequest{NetworkID: id, EndpointID: endID}),
		}
		_, calls["CreateEndpoint"] = c.CreateEndpoint(ctx, &network.CreateEndpointRequest{NetworkID: netID, EndpointID: id})
		_, calls["Join"] = c.Join(ctx, &network.JoinRequest{NetworkID: id, EndpointID: endID})
		_, calls["EndpointInfo"] = c.EndpointInfo(ctx, &network.InfoRequest{NetworkID: id, EndpointID: endID})
		for call, err := range calls {
			if err == nil {
				t.Errorf("%s took id %q", call, id)
			}
		}
	}
}

func TestErrorsPass(t *testing.T) {
	want := errors.New("no space left on device")
	c := New(&nets{err: want}, &nets{}, nine)
	if err := c.DeleteNetwork(t.Context(), &network.DeleteNetworkRequest{NetworkID: netID}); !errors.Is(err, want) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add(`{"com.docker.network.generic":{"com.docker.network.driver.mtu":"1400"}}`)
	f.Add(`{"com.docker.network.generic":null,"com.docker.network.enable_ipv6":"x"}`)
	f.Add(`{"com.docker.network.generic":{"a":{"b":[]}}}`)
	f.Add(`{"com.docker.network.generic":{"gateway":"flannel","ip-masq":"false"},"com.docker.network.internal":true}`)
	f.Add(`{"com.docker.network.portmap":[{"Proto":6,"IP":"","Port":80,"HostIP":"::1","HostPort":8080,"HostPortEnd":7}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var raw map[string]any
		if json.Unmarshal([]byte(text), &raw) != nil {
			return
		}
		opt, err := parseOptions(raw)
		if err == nil && (opt.mtu != 0 && opt.mtu < minMTU || opt.keepAddr && !opt.gateway) {
			t.Errorf("%s gives %+v", text, opt)
		}
		ports, err := parsePorts(raw)
		for _, p := range ports {
			if err != nil || p.Port == 0 || p.Host == netip.IPv6Loopback() || p.First > p.Last || p.First == 0 && p.Last != 0 {
				t.Errorf("%s gives port %+v, %v", text, p, err)
			}
		}
	})
}
