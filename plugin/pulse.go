package plugin

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

const (
	// pulseRound is the time between two echoes to one host, and pulseRate how
	// many are sent in a second at most: with more than a thousand hosts a round
	// takes longer.
	pulseRound = 10 * time.Second
	pulseRate  = 100
	// pulsePatience is how long an answer may take.
	pulsePatience = 2 * time.Second
	// pulseWindow is how many of the last echoes count.
	pulseWindow = 10
)

// pulse asks every other host for an echo through the network, again and again.
type pulse struct {
	hosts func() report.Host
	log   *slog.Logger

	mu   sync.Mutex
	seen map[pulseKey]*window
}

// pulseKey is a host in a network.
type pulseKey struct {
	network string
	subnet  netip.Prefix
}

// target is whom to ask.
type target struct {
	pulseKey
	inside netip.Addr
}

// window holds what became of the last echoes.
type window struct {
	came  []bool // the oldest first
	took  time.Duration
	since time.Time // when an answer came last
}

func (w *window) add(came bool, took time.Duration, now time.Time) {
	if len(w.came) == pulseWindow {
		w.came = slices.Delete(w.came, 0, 1)
	}
	w.came = append(w.came, came)
	if came {
		w.took, w.since = took, now
	}
}

func (w *window) reach() *report.Reach {
	lost := 0
	for _, came := range w.came {
		if !came {
			lost++
		}
	}
	r := &report.Reach{Sent: len(w.came), Lost: lost, Heard: w.since}
	if lost < len(w.came) {
		r.RTT = w.took
	}
	return r
}

func newPulse(hosts func() report.Host, log *slog.Logger) *pulse {
	return &pulse{hosts: hosts, log: log, seen: map[pulseKey]*window{}}
}

// run asks until ctx ends. Without a socket for it nothing is known, and that is
// all: the network does not depend on it.
func (p *pulse) run(ctx context.Context) error {
	err := probe.Serve(ctx, false, func(g *probe.Pinger) error {
		for {
			if err := p.round(ctx, g.Echo); err != nil {
				return err
			}
		}
	})
	if ctx.Err() == nil && err != nil {
		p.log.Warn("round-trips to other hosts are not measured", "error", err)
		<-ctx.Done()
	}
	return ctx.Err()
}

// round asks every host once, evenly over the round's time.
func (p *pulse) round(ctx context.Context, echo func(context.Context, netip.Addr, int, time.Duration) (time.Duration, error)) error {
	targets := p.targets()
	pause := pulseRound
	if len(targets) > 0 {
		pause = max(pulseRound/time.Duration(len(targets)), time.Second/pulseRate)
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	var asked sync.WaitGroup
	defer asked.Wait()
	for i := 0; i == 0 || i < len(targets); i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if i == len(targets) {
			continue
		}
		to := targets[i]
		asked.Go(func() {
			took, err := echo(ctx, to.inside, 84, pulsePatience)
			if ctx.Err() == nil {
				p.note(to.pulseKey, err, took)
			}
		})
	}
	return nil
}

// targets are the hosts that there is a way to, in random order; what is known of
// others is forgotten.
func (p *pulse) targets() []target {
	var out []target
	known := map[pulseKey]bool{}
	for _, n := range p.hosts().Networks {
		if n.DockerID == "" {
			continue
		}
		for _, peer := range n.Peers {
			key := pulseKey{n.Name, peer.Subnet}
			if peer.Skipped == "" {
				known[key] = true
				out = append(out, target{key, n.Inside(peer)})
			}
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.seen {
		if !known[key] {
			delete(p.seen, key)
		}
	}
	return out
}

// note takes in what became of one echo: one that could not be sent is lost too.
func (p *pulse) note(key pulseKey, err error, took time.Duration) {
	if err != nil && !errors.Is(err, probe.ErrSilent) {
		p.log.Debug("echo not sent", "network", report.Title(key.network), "subnet", key.subnet, "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen[key] == nil {
		p.seen[key] = &window{}
	}
	p.seen[key].add(err == nil, took, time.Now())
}

// tell completes a report's peers with what is known of the way to them.
func (p *pulse) tell(h *report.Host) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range h.Networks {
		for i, peer := range n.Peers {
			if w := p.seen[pulseKey{n.Name, peer.Subnet}]; w != nil {
				n.Peers[i].Reach = w.reach()
			}
		}
	}
}
