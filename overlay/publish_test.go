package overlay_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// gateway makes a Docker network that is its containers' way out, with a port.
func (h *host) gateway(t *testing.T, more ...func(*overlay.Bridge)) overlay.Network {
	t.Helper()
	n, err := h.Acquire(t.Context(), overlay.Request{})
	if err != nil {
		t.Fatal(err)
	}
	b := overlay.Bridge{ID: dockerNet, Subnet: n.Subnet, Gateway: true}
	for _, set := range more {
		set(&b)
	}
	if err := h.Attach(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := h.AddPort(t.Context(), port(n)); err != nil {
		t.Fatal(err)
	}
	return n
}

// on asks for a port at every address of the host.
func on(proto kernel.Protocol, first, last uint16) overlay.Publish {
	return overlay.Publish{Proto: proto, Port: 80, Host: netip.IPv4Unspecified(), First: first, Last: last}
}

// published are the host's published ports as text.
func (h *host) published() string {
	var all []string
	for _, a := range h.Attachments() {
		for _, p := range a.Published {
			all = append(all, fmt.Sprintf("%s/%s>%s", p.Host, p.Asked.Proto, p.To))
		}
	}
	var told []string
	for _, n := range h.Report().Networks {
		for _, p := range n.Published {
			told = append(told, fmt.Sprintf("%s/%s>%s", p.Host, p.Proto, p.To))
		}
	}
	if slices.Sort(told); !slices.Equal(told, slices.Sorted(slices.Values(all))) {
		return fmt.Sprintf("%q, but %q in the report", all, told)
	}
	return strings.Join(all, " ")
}

// held are the ports that the host holds.
func (b *board) held() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	count := 0
	for _, ours := range b.taken {
		if ours {
			count++
		}
	}
	return count
}

func TestGatewayPlan(t *testing.T) {
	for _, c := range []struct {
		name       string
		set        func(*overlay.Bridge)
		has, lacks []string
		leads      bool
	}{
		{"masquerades", func(*overlay.Bridge) {}, []string{"egress fl-", "inside dst 10.5.0.0/16", "beyond fl-", "but eth0", "route_localnet", "hairpin", "publish fl-"}, nil, true},
		{"keeps addresses", func(b *overlay.Bridge) { b.NoMasq = true }, []string{"egress fl-", "back to fl-", "publish fl-"}, []string{"beyond fl-"}, true},
		{"internal", func(b *overlay.Bridge) { b.Internal = true }, nil, []string{"egress", "publish", "masquerade", "route_localnet"}, false},
		{"by docker_gwbridge", func(b *overlay.Bridge) { b.Gateway = false }, nil, []string{"egress", "publish", "masquerade", "route_localnet"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t, newMemory(), newBoard("192.0.2.1"), t.TempDir())
				n := h.gateway(t, c.set)
				joined, err := h.Join(t.Context(), dockerNet, endpoint)
				if err != nil {
					t.Fatal(err)
				}
				if got := joined.Gateway == n.Gateway; got != c.leads || joined.Gateway.IsValid() != c.leads {
					t.Errorf("gateway %s", joined.Gateway)
				}
				if err := h.Publish(t.Context(), dockerNet, endpoint, []overlay.Publish{on(kernel.TCP, 8080, 8080)}); err != nil {
					t.Fatal(err)
				}
				wantText(t, "state", h.board.text(), c.has...)
				for _, part := range c.lacks {
					if strings.Contains(h.board.text(), part) {
						t.Errorf("state has %q:\n%s", part, h.board.text())
					}
				}
			})
		})
	}
}

func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("192.0.2.1")
		b.taken["9000/tcp"] = false // a program of the host
		h := start(t, newMemory(), b, t.TempDir())
		n := h.gateway(t)
		other := port(n)
		other.Endpoint, other.Addr, other.MAC[5] = "0a"+endpoint[2:], other.Addr.Next(), 9
		if err := h.AddPort(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		first := []overlay.Publish{on(kernel.TCP, 8080, 8080), on(kernel.UDP, 8080, 8080), on(kernel.TCP, 9000, 9002), on(kernel.SCTP, 0, 0)}
		to := port(n).Addr
		want := fmt.Sprintf("0.0.0.0:8080/tcp>%s:80 0.0.0.0:8080/udp>%s:80 0.0.0.0:9001/tcp>%s:80 0.0.0.0:49152/sctp>%s:80", to, to, to, to)
		for range 2 { // a repeated call changes nothing
			if err := h.Publish(t.Context(), dockerNet, endpoint, first); err != nil {
				t.Fatal(err)
			}
			if got := h.published(); got != want {
				t.Errorf("published %s, want %s", got, want)
			}
		}
		for _, c := range []struct {
			asked overlay.Publish
			says  []string
		}{
			{on(kernel.TCP, 8080, 8080), []string{"8080/tcp", to.String(), endpoint[:12]}},
			{overlay.Publish{Proto: kernel.UDP, Port: 80, Host: netip.MustParseAddr("192.0.2.1"), First: 8080, Last: 8080}, []string{"8080/udp", to.String()}},
			{on(kernel.TCP, 9000, 9000), []string{"9000/tcp", "a program of this host", "ss -lnp"}},
			{on(kernel.TCP, 9000, 9001), []string{"9000-9001"}},
		} {
			err := h.Publish(t.Context(), dockerNet, other.Endpoint, []overlay.Publish{on(kernel.TCP, 7000, 7000), c.asked})
			if err == nil {
				t.Errorf("%+v is published twice", c.asked)
				continue
			}
			wantText(t, "error", err.Error(), c.says...)
		}
		if got := h.published(); got != want || b.held() != 4 {
			t.Errorf("after refusals: %d held, published %s", b.held(), got)
		}

		// Another process finds all in the file, and holds the ports again.
		h.stop()
		b.mu.Lock()
		clear(b.taken)
		b.taken["8080/udp"] = false // taken while nobody held it
		b.mu.Unlock()
		h = start(t, newMemory(), b, h.dir)
		synctest.Wait()
		if got := h.published(); got != want || b.held() != 3 {
			t.Errorf("after a restart: %d held, published %s", b.held(), got)
		}
		wantText(t, "log", h.log.String(), "published port not held", "8080/udp")

		if err := h.RemovePort(t.Context(), dockerNet, endpoint); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := h.published(); got != "" || b.held() != 0 || strings.Contains(b.text(), "publish fl-") {
			t.Errorf("after the container: %d held, published %s", b.held(), got)
		}
		for _, id := range []string{endpoint, "0b" + endpoint[2:]} {
			if err := h.Publish(t.Context(), dockerNet, id, nil); err != nil {
				t.Errorf("withdraw again: %v", err)
			}
		}
	})
}

// TestPublishFails: where the kernel refuses, nothing stays published.
func TestPublishFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("192.0.2.1")
		h := start(t, newMemory(), b, t.TempDir())
		h.gateway(t)
		b.mu.Lock()
		b.refuse["nft"] = errDown
		b.mu.Unlock()
		if err := h.Publish(t.Context(), dockerNet, endpoint, []overlay.Publish{on(kernel.TCP, 8080, 8080)}); err == nil {
			t.Error("no error")
		}
		if got := h.published(); got != "" {
			t.Errorf("published %s", got)
		}
		synctest.Wait()
		if b.held() != 0 {
			t.Error("the port is held")
		}
	})
}
