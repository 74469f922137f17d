package plugin

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/etcd"
)

// registry is the store as the overlay and an operator need it.
type registry interface {
	overlay.Store
	// Survey lists the networks that have a config, with their leases.
	Survey(ctx context.Context) ([]report.Cluster, error)
	// Leases lists one network's leases with what is left of them;
	// overlay.ErrNoConfig where there is no such network.
	Leases(ctx context.Context, network string) (report.Cluster, error)
	// Remove deletes a network's config; refused while leases stand in it.
	Remove(ctx context.Context, network string) error
}

// link is what is known of the connection to etcd.
type link struct {
	embedded *keeper // nil with an etcd of one's own

	mu    sync.Mutex
	state report.Store
}

func newLink(endpoints []string, embedded *keeper) *link {
	l := &link{embedded: embedded, state: report.Store{Embedded: embedded != nil}}
	for _, e := range endpoints {
		l.state.Endpoints = append(l.state.Endpoints, withoutUser(e))
	}
	return l
}

// saw takes in what became of a call or a watch; nil means that etcd answered.
func (l *link) saw(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if connected := err == nil; !l.state.Asked || l.state.Connected != connected {
		l.state.Asked, l.state.Connected, l.state.Since = true, connected, time.Now()
	}
	l.state.Error = ""
	if err != nil {
		l.state.Error = err.Error()
	}
}

func (l *link) report() report.Store {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state
	s.Endpoints = slices.Clone(s.Endpoints)
	return s
}

// watched is a store that tells how its calls fare.
type watched struct {
	store registry
	link  *link
	seen  func(operation string, took time.Duration, failed bool)
}

// note tells of one call that began and has ended.
func (w watched) note(operation string, began time.Time, err error) {
	if errors.Is(err, context.Canceled) {
		return // the caller's own end
	}
	taken := (*overlay.TakenError)(nil)
	answer := err == nil || errors.As(err, &taken) || errors.Is(err, overlay.ErrNoConfig) || errors.Is(err, overlay.ErrLeaseLost) || errors.Is(err, overlay.ErrFull)
	w.seen(operation, time.Since(began), !answer)
	switch {
	case answer:
		w.link.saw(nil)
	case etcd.Unreachable(err) || w.link.embedded != nil && w.link.embedded.down() != nil:
		w.link.saw(err)
	}
}

func (w watched) Config(ctx context.Context, network string, initial overlay.Initial) (_ overlay.Config, err error) {
	defer func(began time.Time) { w.note("config", began, err) }(time.Now())
	return w.store.Config(ctx, network, initial)
}

func (w watched) Claim(ctx context.Context, network string, claim overlay.Claim) (_ overlay.Lease, err error) {
	defer func(began time.Time) { w.note("claim", began, err) }(time.Now())
	return w.store.Claim(ctx, network, claim)
}

func (w watched) Keep(ctx context.Context, network string, lease overlay.Lease) (err error) {
	defer func(began time.Time) { w.note("keep", began, err) }(time.Now())
	return w.store.Keep(ctx, network, lease)
}

func (w watched) Release(ctx context.Context, network string, lease overlay.Lease) (err error) {
	defer func(began time.Time) { w.note("release", began, err) }(time.Now())
	return w.store.Release(ctx, network, lease)
}

func (w watched) Networks(ctx context.Context) (_ map[string]overlay.Config, err error) {
	defer func(began time.Time) { w.note("networks", began, err) }(time.Now())
	return w.store.Networks(ctx)
}

func (w watched) Survey(ctx context.Context) (_ []report.Cluster, err error) {
	defer func(began time.Time) { w.note("survey", began, err) }(time.Now())
	return w.store.Survey(ctx)
}

func (w watched) Leases(ctx context.Context, network string) (_ report.Cluster, err error) {
	defer func(began time.Time) { w.note("leases", began, err) }(time.Now())
	return w.store.Leases(ctx, network)
}

func (w watched) Remove(ctx context.Context, network string) (err error) {
	defer func(began time.Time) { w.note("remove", began, err) }(time.Now())
	return w.store.Remove(ctx, network)
}

func (w watched) Moved() { w.store.Moved() }

// Watch tells by the store's own health how it fares.
func (w watched) Watch(ctx context.Context, network string, emit func(overlay.Snapshot)) error {
	return w.store.Watch(ctx, network, emit)
}
