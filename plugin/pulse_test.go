package plugin

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

// crowd is a host with that many peers of one network, the first one skipped.
func crowd(peers int) report.Host {
	n := report.Network{Name: "blue", Backend: "vxlan", DockerID: "0123"}
	for i := range peers {
		p := report.Peer{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}
		if i == 0 {
			p.Skipped = "no way"
		}
		n.Peers = append(n.Peers, p)
	}
	return report.Host{Networks: []report.Network{n}}
}

// TestPulse measures three peers: one answers, one does every other time, one
// never does.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := crowd(4)
		p := newPulse(func() report.Host { return host }, slog.New(slog.DiscardHandler))
		times := map[netip.Addr]int{}
		var mu sync.Mutex
		echo := func(_ context.Context, to netip.Addr, _ int, _ time.Duration) (time.Duration, error) {
			mu.Lock()
			defer mu.Unlock()
			times[to]++
			switch n := to.As4()[2]; {
			case n == 0:
				t.Error("asked one that there is no way to")
			case n == 1 || n == 2 && times[to]%2 == 0:
				return 3 * time.Millisecond, nil
			case n == 3:
				return 0, errors.New("network is unreachable")
			}
			return 0, probe.ErrSilent
		}
		began := time.Now()
		for range 12 {
			if err := p.round(t.Context(), echo); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 12*pulseRound-time.Second || took > 12*pulseRound+time.Second {
			t.Errorf("twelve rounds took %s", took)
		}
		p.tell(&host)
		for i, want := range []*report.Reach{
			nil, {RTT: 3 * time.Millisecond, Sent: 10}, {RTT: 3 * time.Millisecond, Sent: 10, Lost: 5}, {Sent: 10, Lost: 10},
		} {
			got := host.Networks[0].Peers[i].Reach
			if want == nil || got == nil {
				if got != nil || want != nil {
					t.Errorf("peer %d: %+v, want %+v", i, got, want)
				}
				continue
			}
			if got.RTT != want.RTT || got.Sent != want.Sent || got.Lost != want.Lost || got.Heard.IsZero() != (want.Lost == 10) {
				t.Errorf("peer %d: %+v, want %+v", i, got, want)
			}
		}
		host.Networks[0].Peers = nil
		if p.targets(); len(p.seen) > 0 {
			t.Error("hosts that are gone stay known")
		}
	})
}

// TestPulseOfThousands: the rate is bounded, and everybody is asked.
func TestPulseOfThousands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const peers = 5001
		host := crowd(peers)
		p := newPulse(func() report.Host { return host }, slog.New(slog.DiscardHandler))
		began := time.Now()
		var mu sync.Mutex
		under, most, asked := 0, 0, 0
		err := p.round(t.Context(), func(context.Context, netip.Addr, int, time.Duration) (time.Duration, error) {
			mu.Lock()
			under++
			asked++
			most = max(most, under)
			mu.Unlock()
			time.Sleep(pulsePatience) // the fake clock's
			mu.Lock()
			under--
			mu.Unlock()
			return 0, probe.ErrSilent
		})
		if took := time.Since(began); err != nil || asked != peers-1 || took < 50*time.Second || took > 53*time.Second || most > 201 {
			t.Errorf("%d asked in %s, %d at a time, %v", asked, took, most, err)
		}
	})
}
