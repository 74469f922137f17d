package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	api "github.com/docker/go-plugins-helpers/ipam"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// host is a small overlay: it owns one subnet for each requested --subnet and
// knows which are acquired.
type host struct {
	mu       sync.Mutex
	subnets  map[netip.Prefix]netip.Prefix // this host's subnet, by --subnet
	acquired map[netip.Prefix]bool
	bare     map[netip.Prefix]bool // without a flannel network
	ports    map[netip.Addr]bool   // of endpoints
	log      []string
	hold     chan struct{} // where not nil, Acquire waits for it
}

func newHost() *host {
	return &host{
		subnets: map[netip.Prefix]netip.Prefix{
			{}:                    prefix("10.5.7.0/24"),
			prefix("10.5.0.0/16"): prefix("10.5.7.0/24"),
			prefix("10.6.0.0/16"): prefix("10.6.9.0/29"),
			prefix("10.7.0.0/16"): prefix("10.7.7.0/31"),
		},
		acquired: map[netip.Prefix]bool{},
	}
}

func (h *host) Acquire(ctx context.Context, req overlay.Request) (overlay.Network, error) {
	if h.hold != nil {
		select {
		case <-h.hold:
		case <-ctx.Done():
			return overlay.Network{}, ctx.Err()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if req.IPv6 {
		if !h.acquired[prefix("10.5.7.0/24")] {
			return overlay.Network{}, errors.New("--ipv6: no IPv6 on this host")
		}
		h.log = append(h.log, "acquire fd00:5:0:7::/64")
		return overlay.Network{Subnet: prefix("10.5.7.0/24"), IPv6Subnet: prefix("fd00:5:0:7::/64")}, nil
	}
	subnet, ok := h.subnets[req.Subnet]
	if !ok {
		return overlay.Network{}, errors.New("--subnet " + req.Subnet.String() + ": not this host's")
	}
	h.acquired[subnet] = true
	h.log = append(h.log, "acquire "+subnet.String())
	return overlay.Network{Subnet: subnet, Gateway: subnet.Addr().Next()}, nil
}

func (h *host) Release(_ context.Context, subnet netip.Prefix) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.acquired, subnet)
	h.log = append(h.log, "release "+subnet.String())
	return nil
}

// Attached is true for every subnet but those in bare.
func (h *host) Attached(subnet netip.Prefix) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.bare[subnet]
}

func (h *host) Taken(_ netip.Prefix, addr netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ports[addr]
}

// fixture is a clerk with its overlay and its file.
type fixture struct {
	*Clerk
	t    testing.TB
	host *host
	path string
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, host: newHost(), path: filepath.Join(t.TempDir(), "addresses.json")}
	f.restart()
	return f
}

// restart is what the plugin's restart does.
func (f *fixture) restart() {
	f.t.Helper()
	c, err := New(f.path, f.host)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Clerk = c
}

// breakDisk makes every save impossible until the answer is called.
func (f *fixture) breakDisk() (mend func()) {
	f.t.Helper()
	temp := f.path + ".tmp"
	if err := os.MkdirAll(filepath.Join(temp, "in the way"), 0o700); err != nil {
		f.t.Fatal(err)
	}
	return func() {
		if err := os.RemoveAll(temp); err != nil {
			f.t.Fatal(err)
		}
	}
}

// call sends one of the engine's calls as it comes, and returns the answer's
// JSON or the error's text.
func (f *fixture) call(name, body string) string {
	f.t.Helper()
	ctx := f.t.Context()
	into := func(req any) {
		if err := json.Unmarshal([]byte(body), req); err != nil {
			f.t.Fatalf("%s %s: %v", name, body, err)
		}
	}
	var res any = struct{}{}
	var err error
	switch name {
	case "GetCapabilities":
		res = f.Capabilities()
	case "GetDefaultAddressSpaces":
		res = f.AddressSpaces()
	case "RequestPool":
		var req api.RequestPoolRequest
		into(&req)
		res, err = f.RequestPool(ctx, &req)
	case "ReleasePool":
		var req api.ReleasePoolRequest
		into(&req)
		err = f.ReleasePool(ctx, &req)
	case "RequestAddress":
		var req api.RequestAddressRequest
		into(&req)
		res, err = f.RequestAddress(ctx, &req)
	case "ReleaseAddress":
		var req api.ReleaseAddressRequest
		into(&req)
		err = f.ReleaseAddress(ctx, &req)
	}
	if err != nil {
		return err.Error()
	}
	text, err := json.Marshal(res)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// want fails the test unless the call is answered so.
func (f *fixture) want(name, body, want string) {
	f.t.Helper()
	if got := f.call(name, body); got != want {
		f.t.Errorf("%s %s:\n got %s\nwant %s", name, body, got, want)
	}
}

// defaultPool is the answer for the default network.
const defaultPool = `{"PoolID":"10.5.7.0/24","Pool":"10.5.7.0/24","Data":{"com.docker.network.gateway":"10.5.7.1/24"}}`

// start requests an address for the container with the MAC address.
func start(mac string) string {
	return fmt.Sprintf(`{"PoolID":"10.5.7.0/24","Options":{"com.docker.network.endpoint.macaddress":%q}}`, mac)
}

func given(addr string) string { return fmt.Sprintf(`{"Address":%q,"Data":null}`, addr+"/24") }

const (
	mac1 = "02:42:0a:05:07:01"
	mac2 = "02:42:0a:05:07:02"
	mac3 = "02:42:0a:05:07:03"
)

// The calls of a network's life in the engine's order, with the plugin
// restarted after every one of them.
func TestLife(t *testing.T) {
	f := newFixture(t)
	gateway := `{"PoolID":"10.5.7.0/24","Address":"10.5.7.1","Options":{"RequestAddressType":"com.docker.network.gateway"}}`
	for _, s := range []struct{ name, body, want string }{
		{"GetCapabilities", "", `{"RequiresMACAddress":true,"RequiresRequestReplay":false}`},
		{"GetDefaultAddressSpaces", "", `{"LocalDefaultAddressSpace":"flannel","GlobalDefaultAddressSpace":"flannel"}`},
		{"RequestPool", `{"AddressSpace":"flannel","Pool":"","SubPool":"","Options":{"com.docker.network.ipam.serial":"true"},"V6":false}`, defaultPool},
		{"RequestAddress", gateway, given("10.5.7.1")},
		{"RequestAddress", `{"PoolID":"10.5.7.0/24","Address":"","Options":{"RequestAddressType":"com.docker.network.gateway"}}`, given("10.5.7.1")},
		{"RequestAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.3","Options":null}`, given("10.5.7.3")},
		{"RequestAddress", start(mac1), given("10.5.7.2")},
		{"RequestAddress", start(mac2), given("10.5.7.4")},
		{"RequestAddress", start(mac1), given("10.5.7.2")},
		{"RequestAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.99","Options":{"com.docker.network.endpoint.macaddress":"` + mac3 + `"}}`, given("10.5.7.99")},
		{"ReleaseAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.2"}`, `{}`},
		{"ReleaseAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.2"}`, `{}`},
		{"RequestAddress", start("02:42:00:00:00:09"), given("10.5.7.5")},
		{"RequestAddress", start(mac1), given("10.5.7.2")},
		{"ReleaseAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.3"}`, `{}`},
		{"ReleaseAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.1"}`, `{}`},
		{"ReleasePool", `{"PoolID":"10.5.7.0/24"}`, `{}`},
		{"RequestAddress", start(mac1), `pool "10.5.7.0/24": not known on this host; remove the network and create it anew`},
		{"ReleaseAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.4"}`, `{}`},
		{"ReleasePool", `{"PoolID":"10.5.7.0/24"}`, `{}`},
		{"RequestPool", `{"AddressSpace":"flannel","Pool":"10.5.0.0/16"}`, defaultPool},
		{"RequestAddress", start(mac2), given("10.5.7.2")},
	} {
		f.want(s.name, s.body, s.want)
		f.restart()
	}
	want := []string{"acquire 10.5.7.0/24", "release 10.5.7.0/24", "release 10.5.7.0/24", "acquire 10.5.7.0/24"}
	if !slices.Equal(f.host.log, want) {
		t.Errorf("the overlay was asked %q, want %q", f.host.log, want)
	}
}

func TestUsage(t *testing.T) {
	f := newFixture(t)
	f.want("RequestPool", `{}`, defaultPool)
	f.call("RequestPool", `{"Pool":"10.6.0.0/16"}`)
	f.call("RequestAddress", start(mac1))
	f.call("RequestAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.9"}`)
	f.restart()
	if got, want := fmt.Sprint(f.Addresses()), "map[10.5.7.0/24:[{10.5.7.2 "+mac1+"} {10.5.7.9 }] 10.6.9.0/29:[]]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := fmt.Sprint(f.Usage()), "map[10.5.7.0/24:{2 251} 10.6.9.0/29:{0 5}]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What a user can do wrong is answered with the thing, its value and what to
// do, and leaves nothing behind.
func TestErrors(t *testing.T) {
	f := newFixture(t)
	f.want("RequestPool", `{}`, defaultPool)
	f.want("RequestAddress", start(mac1), given("10.5.7.2"))
	before := fmt.Sprint(f.Addresses(), f.host.log)
	for _, s := range []struct{ name, body, want string }{
		{"RequestPool", `{"AddressSpace":"LocalDefault"}`,
			`address space "LocalDefault": accepted: "flannel"; create the network with --ipam-driver flannel`},
		{"RequestPool", `{"V6":true,"Pool":"10.5.0.0/16"}`,
			`--subnet 10.5.0.0/16: not an IPv6 subnet such as fd00:5::/48; correct it or leave it out`},
		{"RequestPool", `{"V6":true,"Pool":"fd00:5::1/64"}`,
			`--subnet fd00:5::1/64: an address inside a subnet; give the subnet, fd00:5::/64, or leave it out`},
		{"RequestPool", `{"SubPool":"10.5.7.128/25"}`,
			`--ip-range 10.5.7.128/25: not supported; every address of the host's subnet is handed out; leave it out`},
		{"RequestPool", `{"Options":{"com.docker.network.x":"","size":"big","color":"blue"}}`,
			`--ipam-opt color=blue: unknown option; accepted: backend, network; leave it out`},
		{"RequestPool", `{"Pool":"10.5.0.0"}`,
			`--subnet 10.5.0.0: not an IPv4 subnet such as 10.5.0.0/16; correct it or leave it out`},
		{"RequestPool", `{"Pool":"fd00:5::/64"}`,
			`--subnet fd00:5::/64: not an IPv4 subnet such as 10.5.0.0/16; correct it or leave it out`},
		{"RequestPool", `{"Pool":"10.5.7.9/16"}`,
			`--subnet 10.5.7.9/16: an address inside a subnet; give the subnet, 10.5.0.0/16, or leave it out`},
		{"RequestPool", `{"Pool":"10.9.0.0/16"}`,
			`request a pool: --subnet 10.9.0.0/16: not this host's`},
		{"RequestAddress", `{"PoolID":"10.9.7.0/24"}`,
			`pool "10.9.7.0/24": not known on this host; remove the network and create it anew`},
		{"RequestAddress", `{"PoolID":"10.9.7.0/24","Options":{"RequestAddressType":"com.docker.network.gateway"}}`,
			`pool "10.9.7.0/24": not known on this host; remove the network and create it anew`},
		{"RequestAddress", `{"PoolID":"nonsense","Address":"10.5.7.9"}`,
			`pool "nonsense": not known on this host; remove the network and create it anew`},
		{"RequestAddress", `{"PoolID":"10.5.7.0/24","Address":"nonsense"}`,
			`address "nonsense": not an IP address; correct it or leave it out`},
		{"RequestAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.254","Options":{"RequestAddressType":"com.docker.network.gateway"}}`,
			`--gateway 10.5.7.254: the gateway is always the first address of the host's subnet, here 10.5.7.1; leave it out`},
		{"RequestAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.8.2"}`,
			`address 10.5.8.2: outside this host's subnet 10.5.7.0/24; choose one from 10.5.7.2 to 10.5.7.254`},
		{"RequestAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.2","Options":{"com.docker.network.endpoint.macaddress":"` + mac2 + `"}}`,
			`address 10.5.7.2: in use on this host already, by ` + mac1 + `; choose another`},
		{"ReleaseAddress", `{"PoolID":"10.9.7.0/24","Address":"10.5.7.2"}`, `{}`},
		{"RequestAddress", `{"PoolID":"10.5.7.0/24","Options":{"com.docker.network.endpoint.macaddress":"02:00"}}`,
			`MAC address "02:00": not one such as 02:42:0a:05:07:02; correct --mac-address or leave it out`},
		{"ReleaseAddress", `{"PoolID":"nonsense","Address":"10.5.7.2"}`,
			`release address 10.5.7.2: pool "nonsense": not a subnet such as 10.5.7.0/24; give the pool's id`},
		{"ReleaseAddress", `{"PoolID":"10.5.7.0/24","Address":"nonsense"}`,
			`release address "nonsense": not an IP address; give the one that was handed out`},
		{"ReleasePool", `{"PoolID":"nonsense"}`,
			`release a pool: pool "nonsense": not a subnet such as 10.5.7.0/24; give the pool's id`},
	} {
		f.want(s.name, s.body, s.want)
	}
	if after := fmt.Sprint(f.Addresses(), f.host.log); after != before {
		t.Errorf("something was left behind:\nbefore %s\nafter  %s", before, after)
	}
}

// A subnet that the allocator cannot use is given back.
func TestUnusableSubnet(t *testing.T) {
	f := newFixture(t)
	f.want("RequestPool", `{"Pool":"10.7.0.0/16"}`, `subnet 10.7.7.0/31: not an IPv4 subnet from /8 to /30 nor an IPv6 subnet from /8 to /126`)
	if len(f.host.acquired) != 0 || len(f.Addresses()) != 0 {
		t.Errorf("left behind: %v, %v", f.host.acquired, f.Addresses())
	}
}

// The engine asks for the IPv6 half apart, and both are pools of their own.
func TestIPv6(t *testing.T) {
	f := newFixture(t)
	f.want("RequestPool", `{"V6":true}`, `request a pool: --ipv6: no IPv6 on this host`)
	f.want("RequestPool", `{}`, defaultPool)
	f.want("RequestPool", `{"V6":true,"Pool":"fd00:5::/48"}`,
		`{"PoolID":"fd00:5:0:7::/64","Pool":"fd00:5:0:7::/64","Data":{"com.docker.network.gateway":"fd00:5:0:7::1/64"}}`)
	const six = `"PoolID":"fd00:5:0:7::/64"`
	mac := func(m string) string { return `"Options":{"com.docker.network.endpoint.macaddress":"` + m + `"}` }
	f.want("RequestAddress", `{`+six+`,`+mac(mac1)+`}`, given6("fd00:5:0:7::2"))
	f.want("RequestAddress", `{`+six+`,"Address":"fd00:5:0:7::99",`+mac(mac2)+`}`, given6("fd00:5:0:7::99"))
	f.restart()
	f.want("RequestAddress", `{`+six+`,`+mac(mac1)+`}`, given6("fd00:5:0:7::2"))
	f.want("RequestAddress", `{`+six+`,"Address":"fd00:5:0:7::99",`+mac(mac1)+`}`,
		`address fd00:5:0:7::99: in use on this host already, by `+mac2+`; choose another`)
	f.want("RequestAddress", `{`+six+`,"Address":"fd00:5:0:8::2"}`,
		`address fd00:5:0:8::2: outside this host's subnet fd00:5:0:7::/64; choose one from fd00:5:0:7::2 to fd00:5:0:7:ffff:ffff:ffff:ffff`)
	f.want("ReleaseAddress", `{`+six+`,"Address":"fd00:5:0:7::99"}`, `{}`)
	f.want("RequestAddress", `{`+six+`}`, given6("fd00:5:0:7::3"))
	f.want("ReleasePool", `{`+six+`}`, `{}`)
	if got, want := fmt.Sprint(f.Addresses()), "map[10.5.7.0/24:[]]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func given6(addr string) string { return `{"Address":"` + addr + `/64","Data":null}` }

// A subnet that the overlay returns again, its network being gone, is answered
// again; the addresses of the gone network's containers rest.
func TestPoolLeftOver(t *testing.T) {
	f := newFixture(t)
	f.want("RequestPool", `{}`, defaultPool)
	f.want("RequestAddress", start(mac1), given("10.5.7.2"))
	f.want("RequestPool", `{}`, defaultPool)
	f.want("RequestAddress", start(mac2), given("10.5.7.3"))
	if held := f.Addresses()[prefix("10.5.7.0/24")]; len(held) != 1 {
		t.Errorf("in use: %v", held)
	}
}

// Two containers with one MAC address: the second's refusal by the driver ends
// in a release, which must not free the first's address.
func TestReleaseOfAnEndpointsAddress(t *testing.T) {
	f := newFixture(t)
	f.want("RequestPool", `{}`, defaultPool)
	f.want("RequestAddress", start(mac1), given("10.5.7.2"))
	f.host.ports = map[netip.Addr]bool{netip.MustParseAddr("10.5.7.2"): true}
	f.want("RequestAddress", start(mac1), given("10.5.7.2"))
	f.call("ReleaseAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.2"}`)
	if held := f.Addresses()[prefix("10.5.7.0/24")]; len(held) != 1 {
		t.Errorf("in use: %v", held)
	}
	f.host.ports = nil
	f.call("ReleaseAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.2"}`)
	if held := f.Addresses()[prefix("10.5.7.0/24")]; len(held) != 0 {
		t.Errorf("in use after the endpoint went: %v", held)
	}
}

// A network of another driver on a pool of ours.
func TestPoolOfAnotherDriver(t *testing.T) {
	f := newFixture(t)
	f.want("RequestPool", `{}`, defaultPool)
	f.host.bare = map[netip.Prefix]bool{prefix("10.5.7.0/24"): true}
	_, err := f.RequestAddress(t.Context(), &api.RequestAddressRequest{
		PoolID: "10.5.7.0/24", Options: map[string]string{macOption: mac1},
	})
	if err == nil || !strings.Contains(err.Error(), "-d flannel --ipam-driver flannel") {
		t.Errorf("error %v", err)
	}
}

func TestNewErrors(t *testing.T) {
	pool := `{"subnet":"10.5.7.0/24","next":"10.5.7.2"}`
	for text, want := range map[string]string{
		``:                           "cannot be read",
		`null`:                       "version 0, this program reads version 1",
		`{"version":2,"pools":[]}`:   "version 2, this program reads version 1",
		`{"version":1,"pools":[{}]}`: "not an IPv4 subnet",
		`{"version":1,"pools":[` + pool + `,` + pool + `]}`: "subnet 10.5.7.0/24: listed twice",
	} {
		path := filepath.Join(t.TempDir(), "addresses.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(path, newHost())
		if err == nil {
			t.Errorf("%s: no error", text)
			continue
		}
		for _, part := range []string{want, path, "move it away"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", text, err, part)
			}
		}
	}
}

// The file of today's format must be readable by every later version.
func TestFile(t *testing.T) {
	f := newFixture(t)
	f.call("RequestPool", `{}`)
	f.call("RequestAddress", start(mac1))
	text, err := os.ReadFile(f.path)
	want := `{"version":1,"pools":[{"subnet":"10.5.7.0/24","next":"10.5.7.3","held":[{"addr":"10.5.7.2","owner":"` + mac1 + `"}]}]}` + "\n"
	if err != nil || string(text) != want {
		t.Errorf("got  %s (%v)\nwant %s", text, err, want)
	}
}

// FuzzCalls wants that nothing in a call makes the clerk panic or hand out what
// it may not.
func FuzzCalls(f *testing.F) {
	f.Add("10.5.0.0/16", "", "flannel", "k", "v", "10.5.7.0/24", "10.5.7.9", mac1)
	f.Add("::ffff:10.5.0.0/112", "10.5.7.128/25", "", "com.docker.network.x", "v", "10.5.7.9/24", "::ffff:10.5.7.9", "")
	f.Add("0.0.0.0/0", "", "", "", "", "", "fe80::1%eth0", "x")
	f.Fuzz(func(t *testing.T, subnet, sub, space, key, value, id, address, mac string) {
		req := &api.RequestPoolRequest{Pool: subnet, SubPool: sub, AddressSpace: space, Options: map[string]string{key: value}}
		if want, err := parsePoolRequest(req); err == nil && want.Subnet.IsValid() && !want.Subnet.Addr().Is4() {
			t.Errorf("%s was read as %s", subnet, want.Subnet)
		}
		c := &Clerk{pools: map[netip.Prefix]*pool{}}
		p := newPool("", newAllocator(t, "10.5.7.0/24"))
		c.pools[p.Subnet()] = p
		want, _ := netip.ParseAddr(address)
		for range 2 {
			if _, got, _, err := c.take(canceled(), id, want.Unmap(), mac); err == nil && p.check(got) != nil {
				t.Errorf("pool %q, address %q: got %s", id, address, got)
			}
		}
		if _, err := c.release(id, want); err == nil && p.Used() > 2 {
			t.Errorf("%d addresses in use", p.Used())
		}
	})
}

// canceled is a context that is over, so that nothing waits.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
