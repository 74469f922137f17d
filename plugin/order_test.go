package plugin

import (
	"strings"
	"testing"
)

func createEndpoint(net, end, addr, mac string) string {
	return `{"NetworkID":"` + net + `","EndpointID":"` + end + `","Interface":{"Address":"` + addr + `","MacAddress":"` + mac + `"}}`
}

func createNetwork(id, pool, mtu string) string {
	return `{"NetworkID":"` + id + `","Options":{"com.docker.network.generic":{"com.docker.network.driver.mtu":"` + mtu + `"}},` +
		`"IPv4Data":[{"AddressSpace":"flannel","Pool":"` + pool + `"}]}`
}

func requestAddress(pool, addr, mac string) string {
	return `{"PoolID":"` + pool + `","Address":"` + addr + `","Options":{"com.docker.network.endpoint.macaddress":"` + mac + `"}}`
}

// TestTooEarly makes every call where those before it have not been made, or
// have been undone.
func TestTooEarly(t *testing.T) {
	d := newDoor(t)
	for _, s := range life {
		d.take(s)
	}
	for _, c := range []struct{ path, body, says, next string }{
		{"/IpamDriver.RequestAddress", life[1].body, "10.5.1.0/24", "create it anew"},
		{"/IpamDriver.RequestAddress", life[3].body, "10.5.1.0/24", "docker network create"},
		{"/NetworkDriver.CreateNetwork", life[2].body, "10.5.1.0/24", "--ipam-driver flannel"},
		{"/NetworkDriver.CreateEndpoint", life[4].body, "10.5.1.2", "start the container again"},
		{"/NetworkDriver.Join", life[5].body, "0123456789ab", "create it anew"},
	} {
		d.refused("POST", c.path, c.body, c.says, c.next)
	}
	for _, s := range life[joined:] {
		d.idle(s.path, s.body)
	}
	d.take(life[0])
	d.refused("POST", "/IpamDriver.RequestAddress", life[3].body, "10.5.1.0/24", "docker network create")
	d.take(life[2])
	d.refused("POST", "/NetworkDriver.Join", life[5].body, "fedcba987654", "restart the container")
	d.refused("POST", "/NetworkDriver.CreateEndpoint", life[4].body, "10.5.1.2", "start the container again")
}

// TestContradictions makes calls that do not fit what stands.
func TestContradictions(t *testing.T) {
	d := newDoor(t)
	for _, s := range life[:joined] {
		d.take(s)
	}
	for _, c := range []struct{ path, body, says, next string }{
		{"/IpamDriver.RequestPool", life[0].body, "0123456789ab", "docker network rm"},
		{"/NetworkDriver.CreateNetwork", createNetwork(netID, "10.5.1.0/24", "1300"), "1400", "docker network rm"},
		{"/NetworkDriver.CreateNetwork", createNetwork(netID, "10.5.2.0/24", "1400"), "0123456789ab", "docker network rm"},
		{"/NetworkDriver.CreateNetwork", createNetwork(netID, "10.5.1.0/24", "99999"), "0123456789ab", "docker network rm"},
		{"/NetworkDriver.CreateNetwork", createNetwork(otherID, "10.5.1.0/24", "1400"), "10.5.1.0/24", "docker network rm"},
		{"/NetworkDriver.CreateEndpoint", createEndpoint(netID, otherID, "10.5.1.2/24", otherMAC), "10.5.1.2", "of its own"},
		{"/NetworkDriver.CreateEndpoint", createEndpoint(netID, endID, "10.5.1.2/24", otherMAC), "fedcba987654", "start it again"},
		{"/NetworkDriver.CreateEndpoint", createEndpoint(netID, endID[:12]+"00", "10.5.1.2/24", theMAC), "fedcba987654", "start it again"},
		{"/NetworkDriver.CreateEndpoint", createEndpoint(netID, otherID, "10.5.1.3/24", otherMAC), "10.5.1.3", "start the container again"},
		{"/NetworkDriver.CreateEndpoint", createEndpoint(netID, otherID, "10.5.1.1/24", otherMAC), "10.5.1.1", "start the container again"},
		{"/NetworkDriver.CreateEndpoint", createEndpoint(netID, otherID, "10.5.1.2", otherMAC), `"10.5.1.2"`, "--ip"},
		{"/NetworkDriver.CreateEndpoint", createEndpoint(netID, otherID, "fd00::2/64", otherMAC), `"fd00::2/64"`, "--ip"},
		{"/NetworkDriver.CreateEndpoint", createEndpoint(netID, otherID, "10.5.1.2/24", "02:42"), `"02:42"`, "--mac-address"},
		{"/NetworkDriver.CreateEndpoint", createEndpoint(otherID, endID, "10.5.1.2/24", theMAC), "aaaaaaaaaaaa", "docker network rm"},
		{"/NetworkDriver.Join", endpointOf(netID, otherID), "aaaaaaaaaaaa", "restart the container"},
		{"/NetworkDriver.Join", endpointOf(otherID, endID), "aaaaaaaaaaaa", "docker network rm"},
		{"/IpamDriver.RequestAddress", requestAddress("10.5.1.0/24", "10.5.1.2", otherMAC), "10.5.1.2", "choose another"},
		{"/IpamDriver.RequestAddress", requestAddress("10.5.1.0/24", "10.5.1.1", otherMAC), "10.5.1.1", "choose one"},
		{"/IpamDriver.RequestAddress", requestAddress("10.5.1.0/24", "10.5.2.9", otherMAC), "10.5.2.9", "choose one"},
		{"/IpamDriver.RequestAddress", requestAddress("10.5.1.0/24", "", "x\n"), `"x\n"`, "--mac-address"},
		{"/IpamDriver.RequestAddress", requestAddress("10.5.2.0/24", "", otherMAC), "10.5.2.0/24", "docker network create"},
	} {
		d.refused("POST", c.path, strings.ReplaceAll(c.body, "\n", `\n`), c.says, c.next)
	}
	// What an endpoint has is not released, and nothing unknown is there to be
	// removed.
	d.idle("/IpamDriver.ReleaseAddress", `{"PoolID":"10.5.1.0/24","Address":"10.5.1.2"}`)
	d.idle("/IpamDriver.ReleaseAddress", `{"PoolID":"10.5.1.0/24","Address":"10.5.1.77"}`)
	d.idle("/IpamDriver.ReleaseAddress", `{"PoolID":"10.5.2.0/24","Address":"10.5.1.2"}`)
	d.idle("/IpamDriver.ReleasePool", `{"PoolID":"10.5.2.0/24"}`)
	for _, call := range []string{"Leave", "DeleteEndpoint", "EndpointOperInfo"} {
		d.idle("/NetworkDriver."+call, endpointOf(netID, otherID))
		d.idle("/NetworkDriver."+call, endpointOf(otherID, endID))
	}
	d.idle("/NetworkDriver.DeleteNetwork", `{"NetworkID":"`+otherID+`"}`)
}

// TestOddIDs gives every call ids that are none.
func TestOddIDs(t *testing.T) {
	d := newDoor(t)
	odd := []string{
		``, `short`, `../../../../etc/passwd`, strings.Repeat("a", 65), strings.ToUpper(otherID), `0123456789ab\u0000`, `0123456789ab\n`,
		`0123456789äb`, `0123456789ab%00`, ` 0123456789ab`, `0123456789ab;reboot`, "0123456789ab\xff", `💥💥💥💥💥💥💥💥💥💥💥💥`,
	}
	for _, s := range life {
		for _, good := range []string{netID, endID, "10.5.1.0/24"} {
			if !strings.Contains(s.body, good) || strings.Contains(s.path, "External") {
				continue // these two change nothing, whatever they say
			}
			for _, id := range odd {
				body := strings.Replace(s.body, good, id, 1)
				if fault := d.refused("POST", s.path, body); len(fault) < 40 {
					t.Errorf("%s %s: %q", s.path, body, fault)
				}
			}
		}
		d.take(s)
	}
}

// TestOrders takes a standing network down in every order of the calls.
func TestOrders(t *testing.T) {
	d := newDoor(t)
	down := life[joined+4:]
	permute(len(down), func(order []int) {
		for _, s := range life[:joined] {
			d.take(s)
		}
		for range 2 { // a call may have to wait for another: the engine's order is always right
			for _, i := range order {
				if _, fault := d.call(t, "POST", down[i].path, down[i].body); fault != "" {
					t.Fatalf("%v: %s: %s", order, down[i].path, fault)
				}
			}
		}
		d.await(t, "taken down", func(state string) bool {
			return !strings.Contains(state, `"Leased":true`) && strings.HasSuffix(state, "\"pools\":[]}\n\n")
		})
		if state := d.state(t); strings.Contains(state, "0123456789ab") {
			t.Fatalf("%v leaves\n%s", order, state)
		}
	})
}

// permute calls f with every order of the numbers below n.
func permute(n int, f func([]int)) {
	order := make([]int, 0, n)
	var next func()
	next = func() {
		if len(order) == n {
			f(order)
			return
		}
	number:
		for i := range n {
			for _, j := range order {
				if i == j {
					continue number
				}
			}
			order = append(order, i)
			next()
			order = order[:len(order)-1]
		}
	}
	next()
}
