package plugin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// story makes calls about a few ids in any order, and knows what must have
// become of them.
type story struct {
	*world
	t *testing.T
	// requested are the addresses that were handed out and that no endpoint
	// has, yet or any more.
	requested map[netip.Addr]bool
	pool      bool // the engine has asked for the pool and not released it
	used      bool // the pool, or a network on it, needs the lease
}

const pool = "10.5.1.0/24"

var (
	someNets = []string{netID, otherID}
	someEnds = []string{endID, otherID, endID[:20], strings.Repeat("b", 25)}
)

func addrOf(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 5, 1, n}) }

func macOf(n byte) string { return fmt.Sprintf("02:42:0a:05:01:%02x", n) }

// ports are the endpoints that exist.
func (s *story) ports() (ports []overlay.Port) {
	for _, a := range s.overlay.Attachments() {
		ports = append(ports, a.Ports...)
	}
	return ports
}

// call makes one call; one that fails must change nothing.
func (s *story) call(path, body string) (answer string, ok bool) {
	before := s.state(s.t)
	answer, fault := s.do(s.t, http.MethodPost, path, body)
	synctest.Wait()
	if after := s.state(s.t); fault != "" && after != before {
		s.t.Fatalf("%s %s: %s, yet\n%s\nbecame\n%s", path, body, fault, before, after)
	}
	return answer, fault == ""
}

// next makes the call that three bytes say.
func (s *story) next(kind, a, b byte) {
	network, end, addr := someNets[b/4%2], someEnds[b%4], addrOf(a%8)
	switch kind % 12 {
	case 0:
		if _, ok := s.call("/IpamDriver.RequestPool", life[0].body); ok {
			clear(s.requested)
			s.pool, s.used = true, true
		}
	case 1:
		if _, ok := s.call("/IpamDriver.ReleasePool", `{"PoolID":"`+pool+`"}`); ok {
			clear(s.requested)
			s.pool, s.used = false, len(s.overlay.Attachments()) > 0
		}
	case 2:
		s.call("/NetworkDriver.CreateNetwork", createNetwork(network, pool, []string{"1400", "1300"}[b%2]))
	case 3:
		s.deleteNetwork(network)
	case 4:
		s.requestAddress("", macOf(b%4))
	case 5:
		s.requestAddress(addr.String(), []string{"", macOf(b % 4)}[a/8%2])
	case 6:
		s.releaseAddress(addr)
	case 7:
		if _, ok := s.call("/NetworkDriver.CreateEndpoint", createEndpoint(network, end, addr.String()+"/24", macOf(b%4))); ok {
			delete(s.requested, addr)
		}
	case 8:
		s.deleteEndpoint(network, end)
	case 9:
		if _, ok := s.call("/NetworkDriver.Join", endpointOf(network, end)); ok && !strings.Contains(s.kernel.text(), "veth flv"+end[:12]) {
			s.t.Fatalf("%s has joined, but\n%s", end, s.kernel.text())
		}
	case 10:
		s.call("/NetworkDriver.Leave", endpointOf(network, end))
	case 11:
		time.Sleep(time.Duration(b) * time.Second) // the fake clock's
	}
	s.check()
}

func (s *story) requestAddress(want, mac string) {
	answer, ok := s.call("/IpamDriver.RequestAddress", requestAddress(pool, want, mac))
	if !ok {
		return
	}
	var given struct{ Address netip.Prefix }
	if err := json.Unmarshal([]byte(answer), &given); err != nil {
		s.t.Fatal(err)
	}
	if !slices.ContainsFunc(s.ports(), func(p overlay.Port) bool { return p.Addr == given.Address.Addr() }) {
		s.requested[given.Address.Addr()] = true
	}
}

func (s *story) releaseAddress(addr netip.Addr) {
	if _, ok := s.call("/IpamDriver.ReleaseAddress", `{"PoolID":"`+pool+`","Address":"`+addr.String()+`"}`); ok {
		delete(s.requested, addr)
	}
}

// gone notes that an endpoint's address waits for its release.
func (s *story) gone(p overlay.Port) {
	if s.pool {
		s.requested[p.Addr] = true
	}
}

func (s *story) deleteEndpoint(network, end string) {
	before := s.ports()
	if _, ok := s.call("/NetworkDriver.DeleteEndpoint", endpointOf(network, end)); ok {
		for _, p := range before {
			if p.Network == network && p.Endpoint == end {
				s.gone(p)
			}
		}
	}
}

func (s *story) deleteNetwork(network string) {
	before := s.overlay.Attachments()
	if _, ok := s.call("/NetworkDriver.DeleteNetwork", `{"NetworkID":"`+network+`"}`); ok {
		for _, a := range before {
			if a.ID != network {
				continue
			}
			s.used = false
			for _, p := range a.Ports {
				s.gone(p)
			}
		}
	}
}

// check holds what the rooms say against each other and the story.
func (s *story) check() {
	s.t.Helper()
	want := map[netip.Addr]bool{}
	for addr := range s.requested {
		want[addr] = true
	}
	ports := s.ports()
	for _, p := range ports {
		if want[p.Addr] {
			s.t.Fatalf("%s is given twice: %+v, requested %v", p.Addr, ports, s.requested)
		}
		want[p.Addr] = true
	}
	held, known := s.ipam.Addresses()[netip.MustParsePrefix(pool)]
	if known != s.pool {
		s.t.Fatalf("the pool is known: %t, want %t", known, s.pool)
	}
	if known && len(held) != len(want) {
		s.t.Fatalf("in use are %v, want %v", held, want)
	}
	for _, h := range held {
		if !want[h.Addr] {
			s.t.Fatalf("in use are %v, want %v", held, want)
		}
	}
	if leased := s.store.text() != ""; leased != s.used {
		s.t.Fatalf("leased: %t, want %t\n%s", leased, s.used, s.state(s.t))
	}
	if state := s.kernel.state; len(state.Veths) > len(ports) || (len(state.Links) > 0) != (len(s.overlay.Attachments()) > 0) {
		s.t.Fatalf("%d endpoints, but\n%s", len(ports), state)
	}
}

// end takes everything down.
func (s *story) end() {
	for _, p := range s.ports() {
		s.deleteEndpoint(p.Network, p.Endpoint)
		s.releaseAddress(p.Addr)
	}
	s.call("/IpamDriver.ReleasePool", `{"PoolID":"`+pool+`"}`)
	clear(s.requested)
	s.pool, s.used = false, len(s.overlay.Attachments()) > 0
	for _, network := range someNets {
		s.deleteNetwork(network)
	}
	s.check()
	if text := s.kernel.text() + s.store.text(); text != "" || strings.Contains(s.state(s.t), `"ID"`) {
		s.t.Fatalf("left behind:\n%s", s.state(s.t))
	}
}

// FuzzSequence reads bytes as calls, three each.
func FuzzSequence(f *testing.F) {
	for _, seed := range [][]byte{
		{0, 0, 0, 2, 0, 0, 4, 0, 2, 7, 2, 0, 9, 0, 0, 10, 0, 0, 8, 0, 0, 6, 2, 0, 1, 0, 0, 3, 0, 0},         // a life
		{0, 0, 0, 2, 0, 0, 4, 0, 2, 4, 0, 3, 7, 2, 0, 7, 3, 1, 9, 0, 0, 9, 0, 1, 3, 0, 0, 0, 0, 0, 2, 0, 4}, // a removal of all at once
		{0, 0, 0, 11, 0, 20, 0, 0, 0, 2, 0, 0, 2, 0, 1, 2, 0, 4, 1, 0, 0, 0, 0, 0, 3, 0, 4, 3, 0, 0},        // two networks
		{0, 0, 0, 2, 0, 0, 5, 13, 1, 7, 5, 0, 6, 5, 0, 7, 6, 1, 8, 0, 0, 7, 5, 1, 6, 5, 0, 9, 0, 1},         // one address
		{0, 0, 0, 2, 0, 0, 4, 0, 2, 7, 2, 0, 4, 0, 3, 7, 3, 2, 9, 0, 0, 1, 0, 0, 7, 3, 1, 9, 0, 2, 3, 0, 0}, // one name
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, calls []byte) {
		synctest.Test(t, func(t *testing.T) {
			s := &story{world: newWorld(t), t: t, requested: map[netip.Addr]bool{}}
			synctest.Wait()
			for calls = calls[:min(len(calls), 3*60)]; len(calls) >= 3; calls = calls[3:] {
				s.next(calls[0], calls[1], calls[2])
			}
			s.end()
		})
	})
}
