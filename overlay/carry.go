package overlay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// carrying is how the tunnel of one network stands, for who waits for it.
type carrying struct {
	open    bool
	tunnel  Tunnel         // while it is open
	past    report.Traffic // of the tunnels before it
	err     error          // why it is not open; nil while nothing is known
	changed chan struct{}  // closed when one of these changes
	now     chan struct{}  // a Docker network came: try at once
}

func newCarrying() carrying {
	return carrying{changed: make(chan struct{}), now: make(chan struct{}, 1)}
}

// set tells those who wait; the caller holds Overlay.mu.
func (c *carrying) set(open bool, err error) {
	c.open, c.err = open, err
	close(c.changed)
	c.changed = make(chan struct{})
}

// begin forgets what became of an earlier Docker network's tunnel; the caller
// holds Overlay.mu.
func (c *carrying) begin() {
	c.set(false, nil)
	nudge(c.now)
}

// carry keeps the tunnel of a network open whose backend carries packets in
// this process, while a Docker network stands on it.
func (o *Overlay) carry(ctx context.Context, n *network) error {
	retry := backoff{min: 100 * time.Millisecond, max: 10 * time.Second}
	reported := ""
	for ctx.Err() == nil {
		carrier, self, passed := o.carriage(n)
		if carrier == nil {
			await(ctx, passed)
			continue
		}
		began := time.Now()
		err := o.tunnel(ctx, n, carrier, self)
		if err == nil {
			continue
		}
		if time.Since(began) > retry.max {
			retry.reset()
			reported = ""
		}
		if err.Error() != reported {
			reported = err.Error()
			o.opt.Log.Error("no packets carried, trying on", "network", title(n.Name), "error", err)
		}
		again := time.NewTimer(retry.next())
		select {
		case <-again.C:
		case <-n.carrying.now:
			retry.reset()
		case <-ctx.Done():
		}
		again.Stop()
	}
	return ctx.Err()
}

func await[T any](ctx context.Context, c <-chan T) {
	select {
	case <-c:
	case <-ctx.Done():
	}
}

// carrier is a network's backend where that carries packets itself, else nil.
func (o *Overlay) carrier(r *record) Carrier {
	c, _ := o.opt.Backends[r.Config.Backend.Type].(Carrier)
	return c
}

// carriage returns who is to carry a network's packets and for which place;
// nil for nobody. passed is closed when this may have changed.
func (o *Overlay) carriage(n *network) (c Carrier, self Self, passed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n.Docker != nil {
		c = o.carrier(&n.record)
	}
	return c, n.self(), o.passed
}

// tunnel opens a tunnel and runs it until ctx ends or the network's place has
// changed, which is no error.
func (o *Overlay) tunnel(ctx context.Context, n *network, carrier Carrier, self Self) (err error) {
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		n.carrying.set(false, err)
	}()
	device, _ := carrier.Plan(self, nil)
	if err := o.sync(ctx, objects(device)...); err != nil {
		return err
	}
	var t Tunnel
	err = o.opt.Kernel.Inside(func() (err error) {
		t, err = carrier.Open(self, o.opt.Log)
		return err
	})
	if err != nil {
		return err
	}
	o.count(n, t)
	defer func() {
		o.count(n, nil)
		err = errors.Join(err, t.Close())
	}()
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer stop()
		o.guide(ctx, n, self, t)
	}()
	err = t.Run(ctx)
	stop()
	<-done
	if errors.Is(err, context.Canceled) || !o.serves(n, self) {
		return nil // also where the device went before Run ended
	}
	return err
}

// serves tells whether a tunnel that was opened for self is the one to run.
func (o *Overlay) serves(n *network, self Self) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return n.Docker != nil && n.self().same(self)
}

// guide tells a tunnel its peers, and returns when the tunnel must end.
func (o *Overlay) guide(ctx context.Context, n *network, self Self, t Tunnel) {
	var known *kernel.State // the plan whose peers the tunnel knows
	for ctx.Err() == nil {
		o.mu.Lock()
		plan, peers, passed := o.peers, n.peers, o.passed
		o.mu.Unlock()
		if !o.serves(n, self) {
			return
		}
		if plan != nil && plan != known {
			known = plan
			t.Follow(others(self, peers))
			o.mu.Lock()
			if !n.carrying.open && n.Docker != nil && n.self().same(self) {
				n.carrying.set(true, nil)
			}
			o.mu.Unlock()
		}
		await(ctx, passed)
	}
}

// carried waits until the tunnel that a network may need has been opened, or
// could not be.
func (o *Overlay) carried(ctx context.Context, n *network) error {
	for {
		o.mu.Lock()
		carrier := o.carrier(&n.record)
		now := n.carrying
		o.mu.Unlock()
		switch {
		case carrier == nil || now.open:
			return nil
		case now.err != nil:
			return now.err
		}
		select {
		case <-now.changed:
		case <-ctx.Done():
			return fmt.Errorf("open the tunnel: %w", ctx.Err())
		}
	}
}

// same tells whether a tunnel that was opened for s serves t.
func (s Self) same(t Self) bool {
	return s.Config.Equal(t.Config) && s.Subnet == t.Subnet && s.IPv6 == t.IPv6 && s.IPv6Subnet == t.IPv6Subnet && s.Underlay == t.Underlay && s.Bridge == t.Bridge
}
