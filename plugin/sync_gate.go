package plugin

import (
	"context"
	"net/netip"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
)

// dockerStore is all that a store does for shared Docker networks.
type dockerStore interface {
	sharer
	retirer
}

// gatedSharer is a dockerStore behind the embedded etcd, as gated is a registry.
type gatedSharer struct {
	store dockerStore
	gate  *keeper
}

func (g gatedSharer) Docker(ctx context.Context) ([]blueprint.Entry, error) {
	if err := g.gate.wait(ctx); err != nil {
		return nil, err
	}
	return g.store.Docker(ctx)
}

func (g gatedSharer) WatchDocker(ctx context.Context, emit func([]blueprint.Entry)) error {
	if err := g.gate.wait(ctx); err != nil {
		return ctx.Err()
	}
	return g.store.WatchDocker(ctx, emit)
}

func (g gatedSharer) Publish(ctx context.Context, e blueprint.Entry) (bool, error) {
	if err := g.gate.wait(ctx); err != nil {
		return false, err
	}
	return g.store.Publish(ctx, e)
}

func (g gatedSharer) Note(ctx context.Context, name string, host netip.Addr, p blueprint.Presence, ttl time.Duration) error {
	if err := g.gate.wait(ctx); err != nil {
		return err
	}
	return g.store.Note(ctx, name, host, p, ttl)
}

func (g gatedSharer) Leave(ctx context.Context, e blueprint.Entry, host netip.Addr) error {
	if err := g.gate.wait(ctx); err != nil {
		return err
	}
	return g.store.Leave(ctx, e, host)
}

func (g gatedSharer) Retire(ctx context.Context, network string) ([]string, error) {
	if err := g.gate.wait(ctx); err != nil {
		return nil, err
	}
	return g.store.Retire(ctx, network)
}
