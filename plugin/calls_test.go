package plugin

import (
	"strings"
	"testing"
)

// Ids of Docker's form.
const (
	netID    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	endID    = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	otherID  = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	theMAC   = "02:42:0a:05:01:02"
	otherMAC = "02:42:0a:05:01:03"
)

// step is a call that succeeds at its place in a network's life.
type step struct {
	path, body string
	// part of the state tells, by being there or not, that what goes on
	// behind the answer is done.
	part  string
	there bool
}

func endpointOf(net, end string) string {
	return `{"NetworkID":"` + net + `","EndpointID":"` + end + `"}`
}

// life is everything the engine calls for a network with one container, in its
// order.
var life = []step{
	{"/IpamDriver.RequestPool", `{"AddressSpace":"flannel","Pool":"","SubPool":"","Options":{"com.docker.network.x":"y"},"V6":false}`, "lease 10.5.1.0/24", true},
	{"/IpamDriver.RequestAddress", `{"PoolID":"10.5.1.0/24","Address":"","Options":{"RequestAddressType":"com.docker.network.gateway"}}`, "", true},
	{"/NetworkDriver.CreateNetwork", `{"NetworkID":"` + netID + `","Options":{"com.docker.network.enable_ipv6":false,"com.docker.network.generic":{"com.docker.network.driver.mtu":"1400"}},` +
		`"IPv4Data":[{"AddressSpace":"flannel","Pool":"10.5.1.0/24","Gateway":"10.5.1.1/24","AuxAddresses":{}}],"IPv6Data":[]}`, "link fl-0123456789ab", true},
	{"/IpamDriver.RequestAddress", `{"PoolID":"10.5.1.0/24","Address":"","Options":{"com.docker.network.endpoint.macaddress":"` + theMAC + `"}}`, "", true},
	{"/NetworkDriver.CreateEndpoint", `{"NetworkID":"` + netID + `","EndpointID":"` + endID + `","Options":{"com.docker.network.portmap":[]},` +
		`"Interface":{"Address":"10.5.1.2/24","AddressIPv6":"","MacAddress":"` + theMAC + `"}}`, "", true},
	{"/NetworkDriver.Join", `{"NetworkID":"` + netID + `","EndpointID":"` + endID + `","SandboxKey":"/var/run/docker/netns/1","Options":{}}`, "flvfedcba987654", true},
	{"/NetworkDriver.ProgramExternalConnectivity", `{"NetworkID":"` + netID + `","EndpointID":"` + endID + `","Options":{}}`, "", true},
	{"/NetworkDriver.EndpointOperInfo", endpointOf(netID, endID), "", true},
	{"/NetworkDriver.DiscoverNew", `{"DiscoveryType":1,"DiscoveryData":{}}`, "", true},
	{"/NetworkDriver.RevokeExternalConnectivity", endpointOf(netID, endID), "", true},
	{"/NetworkDriver.Leave", endpointOf(netID, endID), "", true},
	{"/NetworkDriver.DeleteEndpoint", endpointOf(netID, endID), "flvfedcba987654", false},
	{"/IpamDriver.ReleaseAddress", `{"PoolID":"10.5.1.0/24","Address":"10.5.1.2"}`, "", true},
	{"/IpamDriver.ReleasePool", `{"PoolID":"10.5.1.0/24"}`, "", true},
	{"/NetworkDriver.DeleteNetwork", `{"NetworkID":"` + netID + `"}`, `"Leased":true`, false},
}

// joined is how many steps it takes until the container is plugged in.
const joined = 6

// door is a world with a caller at its socket.
type door struct {
	*world
	*caller
	t testing.TB
}

func newDoor(t testing.TB) *door {
	t.Helper()
	w := newWorld(t)
	return &door{w, newCaller(t, w.socket(t)), t}
}

// take makes a call that must succeed, and waits for what goes on behind it.
func (d *door) take(s step) {
	d.t.Helper()
	if _, fault := d.call(d.t, "POST", s.path, s.body); fault != "" {
		d.t.Fatalf("%s %s: %s", s.path, s.body, fault)
	}
	d.await(d.t, s.path, func(state string) bool { return strings.Contains(state, s.part) == s.there })
}

// refused makes a call that must be refused, with these words, and change
// nothing.
func (d *door) refused(method, path, body string, says ...string) (fault string) {
	d.t.Helper()
	before := d.state(d.t)
	_, fault = d.call(d.t, method, path, body)
	if fault == "" {
		d.t.Errorf("%s %.200s: no error", path, body)
	}
	for _, part := range says {
		if !strings.Contains(fault, part) {
			d.t.Errorf("%s %.200s: %q does not say %q", path, body, fault, part)
		}
	}
	d.same(path+" "+body, before)
	return fault
}

// idle makes a call that must succeed and change nothing.
func (d *door) idle(path, body string) {
	d.t.Helper()
	before := d.state(d.t)
	if _, fault := d.call(d.t, "POST", path, body); fault != "" {
		d.t.Errorf("%s %.200s: %s", path, body, fault)
	}
	d.same(path+" "+body, before)
}

func (d *door) same(what, before string) {
	d.t.Helper()
	if after := d.state(d.t); after != before {
		d.t.Fatalf("%.300s changed\n%s\ninto\n%s", what, before, after)
	}
}
