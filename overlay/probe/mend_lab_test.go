//go:build lab

package probe_test

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/logbuf"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
	"github.com/docker-flannel/docker-flannel/overlay/probe"
	"github.com/docker-flannel/docker-flannel/overlay/vxlan"
)

// TestMend runs two whole hosts on a wire with the fault: TCP between them
// comes to work by itself.
func TestMend(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.blind.Store(true)
	store := &book{leases: map[netip.Prefix]overlay.Lease{}, changed: make(chan struct{})}
	log := &logbuf.Buffer{}
	for _, h := range []*host{p.a, p.b} {
		run(t, h, store, log)
	}
	deadline := time.Now().Add(30 * time.Second)
	for err := p.connect(t, time.Second/2); err != nil; err = p.connect(t, time.Second/2) {
		if time.Now().After(deadline) {
			t.Fatalf("TCP: %v\n%s", err, log)
		}
	}
	// It is said once the mending is seen to help, a moment after TCP works.
	for !strings.Contains(log.String(), "WARN") && time.Now().Before(deadline) {
		if err := p.connect(t, 900*time.Millisecond); err != nil { // before the first SYN is sent again
			t.Errorf("TCP broke again: %v\n%s", err, log)
		}
	}
	if n := strings.Count(log.String(), "WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, log)
	}
	t.Log(log)
}

// run makes the host's Docker network.
func run(t *testing.T, h *host, store overlay.Store, log *logbuf.Buffer) {
	t.Helper()
	o, err := overlay.New(overlay.Options{
		Dir: t.TempDir(), Store: store, Kernel: h.k, Probe: inside{h}, Release: kernel.Release(), TTL: time.Hour,
		Backends: map[string]overlay.Backend{vxlan.Type: vxlan.Backend{}},
		Underlay: kernel.UnderlaySpec{Iface: "tap0"},
		Log:      slog.New(slog.NewTextHandler(log, nil)).With("host", h.n),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	n, err := o.Acquire(ctx, overlay.Request{})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Attach(ctx, overlay.Bridge{ID: "0123456789abcdef", Subnet: n.Subnet}); err != nil {
		t.Fatal(err)
	}
}

// inside probes from a host's namespace.
type inside struct{ h *host }

func (i inside) Checksums(ctx context.Context, from, to netip.Addr) (v probe.Verdict, err error) {
	i.h.do(func() error {
		v, err = probe.UDP{}.Checksums(ctx, from, to)
		return nil
	})
	return v, err
}

// book is a Store that gives host n the subnet of vtep(n).
type book struct {
	mu      sync.Mutex
	leases  map[netip.Prefix]overlay.Lease
	changed chan struct{}
}

func (b *book) Config(context.Context, string, overlay.Initial) (overlay.Config, error) {
	return overlay.ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`))
}

func (*book) Networks(context.Context) (map[string]overlay.Config, error) { return nil, nil }

func (b *book) Claim(_ context.Context, _ string, c overlay.Claim) (overlay.Lease, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := overlay.Lease{
		Subnet:   netip.PrefixFrom(vtep(c.PublicIP.As4()[3]), 24),
		PublicIP: c.PublicIP, BackendType: c.BackendType, BackendData: c.BackendData,
	}
	b.leases[l.Subnet] = l
	close(b.changed)
	b.changed = make(chan struct{})
	return l, nil
}

func (b *book) Keep(context.Context, string, overlay.Lease) error { return nil }

func (b *book) Release(context.Context, string, overlay.Lease) error { return nil }

func (b *book) Moved() {}

func (b *book) Watch(ctx context.Context, _ string, emit func(overlay.Snapshot)) error {
	for {
		s := overlay.Snapshot{Configured: true}
		s.Config, _ = b.Config(ctx, "", nil)
		b.mu.Lock()
		for _, p := range slices.SortedFunc(maps.Keys(b.leases), netip.Prefix.Compare) {
			s.Leases = append(s.Leases, b.leases[p])
		}
		changed := b.changed
		b.mu.Unlock()
		emit(s)
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
