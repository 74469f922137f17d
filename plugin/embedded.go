package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/embedded"
)

// keeper runs the embedded etcd and starts it again when it ends: at a boot
// the address it listens on may not be there yet.
type keeper struct {
	opt embedded.Options
	log *slog.Logger

	mu      sync.Mutex
	why     error         // why it does not serve; nil while it serves
	changed chan struct{} // closed when why changes
}

// again is the time between two tries to start the embedded etcd.
const again = 2 * time.Second

var errStarting = errors.New("the embedded etcd is starting")

func newKeeper(opt embedded.Options, log *slog.Logger) *keeper {
	return &keeper{opt: opt, log: log, why: errStarting, changed: make(chan struct{})}
}

// run keeps the embedded etcd up until ctx ends.
func (k *keeper) run(ctx context.Context) error {
	for {
		server := embedded.New(k.opt)
		ended := make(chan error, 1)
		go func() { ended <- server.Run(ctx) }()
		var err error
		select {
		case <-server.Ready():
			k.set(nil)
			err = <-ended
		case err = <-ended:
		}
		if ctx.Err() != nil {
			return err
		}
		if errors.Is(err, embedded.ErrRenewed) {
			k.log.Info("embedded etcd starts again", "reason", err)
			k.set(errStarting)
			continue
		}
		k.log.Error("embedded etcd ended, trying again", "error", err)
		k.set(fmt.Errorf("the embedded etcd does not run: %w", err))
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (k *keeper) set(why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.why = why
	close(k.changed)
	k.changed = make(chan struct{})
}

// down is why the embedded etcd does not serve, nil while it does.
func (k *keeper) down() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.why
}

// wait returns once the embedded etcd serves, or with the reason why not.
func (k *keeper) wait(ctx context.Context) error {
	for {
		k.mu.Lock()
		why, changed := k.why, k.changed
		k.mu.Unlock()
		if why == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return why
		}
	}
}

// gated is a Store behind the embedded etcd: no call goes out while another
// process may be listening in its place.
type gated struct {
	store registry
	gate  *keeper
}

func (g gated) Config(ctx context.Context, network string, initial overlay.Initial) (overlay.Config, error) {
	if err := g.gate.wait(ctx); err != nil {
		return overlay.Config{}, err
	}
	return g.store.Config(ctx, network, initial)
}

func (g gated) Networks(ctx context.Context) (map[string]overlay.Config, error) {
	if err := g.gate.wait(ctx); err != nil {
		return nil, err
	}
	return g.store.Networks(ctx)
}

func (g gated) Claim(ctx context.Context, network string, claim overlay.Claim) (overlay.Lease, error) {
	if err := g.gate.wait(ctx); err != nil {
		return overlay.Lease{}, err
	}
	return g.store.Claim(ctx, network, claim)
}

func (g gated) Keep(ctx context.Context, network string, lease overlay.Lease) error {
	if err := g.gate.wait(ctx); err != nil {
		return err
	}
	return g.store.Keep(ctx, network, lease)
}

func (g gated) Release(ctx context.Context, network string, lease overlay.Lease) error {
	if err := g.gate.wait(ctx); err != nil {
		return err
	}
	return g.store.Release(ctx, network, lease)
}

func (g gated) Survey(ctx context.Context) ([]report.Cluster, error) {
	if err := g.gate.wait(ctx); err != nil {
		return nil, err
	}
	return g.store.Survey(ctx)
}

func (g gated) Leases(ctx context.Context, network string) (report.Cluster, error) {
	if err := g.gate.wait(ctx); err != nil {
		return report.Cluster{}, err
	}
	return g.store.Leases(ctx, network)
}

func (g gated) Remove(ctx context.Context, network string) error {
	if err := g.gate.wait(ctx); err != nil {
		return err
	}
	return g.store.Remove(ctx, network)
}

func (g gated) Moved() { g.store.Moved() }

func (g gated) Watch(ctx context.Context, network string, emit func(overlay.Snapshot)) error {
	if err := g.gate.wait(ctx); err != nil {
		return ctx.Err()
	}
	return g.store.Watch(ctx, network, emit)
}
