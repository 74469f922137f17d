// Package overlay is the heart of the project: it knows what is wanted on this
// host, learns from the Store what the other hosts are, plans the kernel's
// state purely from both, and runs the one loop that makes it so.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/docker-flannel/docker-flannel/internal/statefile"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Kernel is what the reconciler asks of the kernel room.
type Kernel interface {
	// Apply makes want true and tells what it changed and what failed.
	Apply(ctx context.Context, want kernel.State) kernel.Result
	// Watch calls wake when something of ours was changed by others; it
	// returns when ctx ends.
	Watch(ctx context.Context, wake func()) error
	// Doubt makes the next Apply read the kernel anew.
	Doubt()
	// Underlay finds the interface that carries traffic between hosts.
	Underlay(spec kernel.UnderlaySpec) (kernel.Underlay, error)
	// Conflict tells what on this host stands in the way of the subnet p,
	// where given, and of devices with these names; "" for nothing.
	Conflict(p netip.Prefix, devices ...string) (string, error)
	// Inside calls f on a thread in the host's network namespace.
	Inside(f func() error) error
}

// Options are what an Overlay is made of.
type Options struct {
	Dir      string // of the state files
	Store    Store
	Kernel   Kernel
	Backends map[string]Backend // by BackendType, as in flannel's config
	Initial  []byte             // the config of the default network where the store has none
	Pool     Pool               // of networks with a name that nobody gave a CIDR
	Underlay kernel.UnderlaySpec
	MTU      int           // bytes; 0 for the largest that the underlay carries
	TTL      time.Duration // of a lease
	Probe    Prober        // nil for none
	Release  string        // of the running kernel
	Ports    Holder
	// Passed is told how long each pass of the loop took; nil for nobody.
	Passed func(took time.Duration)
	Log    *slog.Logger
}

// Overlay is this host's part of every flannel network it takes part in.
type Overlay struct {
	opt  Options
	file *statefile.Writer
	seen *statefile.Writer // the leases last seen, so that peers stay reachable without the store

	mu        sync.Mutex
	nets      map[string]*network // by flannel network name
	wanted    int                 // edits so far
	done      int                 // edits that the last pass covered
	passed    chan struct{}       // closed after every pass
	failed    []kernel.Failure    // of the last pass
	peers     *kernel.State       // the backends' plans; nil when they must be made anew
	holds     map[held]io.Closer  // published ports
	contested map[held]bool       // published ports that somebody else has, logged
	forward   bool                // the engine is up, so its FORWARD policy is decided
	under     kernel.Underlay     // as last found
	loop      loop

	wake    chan struct{}
	look    atomic.Bool   // the underlay may have changed
	arrived chan struct{} // a network got its first subnet
}

// AuditInterval is how often the kernel is read anew without being told.
const AuditInterval = 30 * time.Second

// StateFile holds this host's networks, in Options.Dir.
const StateFile = "networks.json"

// New loads this host's state; it starts nothing.
func New(opt Options) (*Overlay, error) {
	o := &Overlay{
		opt: opt, nets: map[string]*network{}, passed: make(chan struct{}),
		wake: make(chan struct{}, 1), arrived: make(chan struct{}, 1),
		holds: map[held]io.Closer{}, contested: map[held]bool{},
	}
	o.file = statefile.NewWriter(filepath.Join(opt.Dir, StateFile), o.records)
	o.seen = statefile.NewWriter(filepath.Join(opt.Dir, "leases.json"), o.leases)
	if err := o.load(); err != nil {
		return nil, err
	}
	return o, nil
}

// Run follows the store and keeps the kernel as wanted until ctx ends. It
// leaves the data path standing.
func (o *Overlay) Run(ctx context.Context) error {
	o.begin()
	o.refreshUnderlay()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.reconcile(ctx) })
	g.Go(func() error { return o.opt.Kernel.Watch(ctx, o.disturbed) })
	g.Go(func() error { return o.tendAll(ctx, g) })
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// tendAll starts one tend and one carry a network, for those that have a subnet
// at the start and those that get one later.
func (o *Overlay) tendAll(ctx context.Context, g *errgroup.Group) error {
	tended := map[*network]bool{}
	for {
		for _, n := range o.all() {
			if !tended[n] {
				tended[n] = true
				g.Go(func() error { return o.tend(ctx, n) })
				g.Go(func() error { return o.carry(ctx, n) })
			}
		}
		select {
		case <-o.arrived:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// poke asks for a pass.
func (o *Overlay) poke() { nudge(o.wake) }

// disturbed asks for a pass that also looks at the underlay.
func (o *Overlay) disturbed() {
	o.look.Store(true)
	o.poke()
}

// sync waits until a pass has covered every edit made before the call, and
// returns what failed of the named objects and of those that all need.
func (o *Overlay) sync(ctx context.Context, objects ...string) error {
	o.mu.Lock()
	o.wanted++
	mine := o.wanted
	o.mu.Unlock()
	o.poke()
	for {
		o.mu.Lock()
		done, failed, passed := o.done, o.failed, o.passed
		o.mu.Unlock()
		if done >= mine {
			return pick(failed, objects)
		}
		select {
		case <-passed:
		case <-ctx.Done():
			return fmt.Errorf("program the kernel: %w; try again", ctx.Err())
		}
	}
}

// common are failures that leave nothing as wanted: the kernel could not be
// read, a pass ended early, the table that isolates was not written.
var common = []string{"kernel", "apply", "nft"}

// pick joins the errors of the named and the common objects.
func pick(failed []kernel.Failure, objects []string) error {
	var errs []error
	for _, f := range failed {
		if slices.Contains(objects, f.Object) || slices.Contains(common, f.Object) {
			errs = append(errs, fmt.Errorf("%s: %w", f.Object, f.Err))
		}
	}
	return errors.Join(errs...)
}

// reconcile is the one loop that writes to the kernel.
func (o *Overlay) reconcile(ctx context.Context) error {
	audit := time.NewTicker(AuditInterval)
	defer audit.Stop()
	retry := backoff{min: time.Second, max: AuditInterval}
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-audit.C:
			o.allowForwarding()
			o.endMourning()
			o.opt.Kernel.Doubt()
			o.look.Store(true)
		case <-again.C:
		case <-o.wake:
		}
		if o.look.Swap(false) {
			o.refreshUnderlay()
		}
		if o.pass(ctx) {
			retry.reset()
		} else {
			again.Reset(retry.next())
		}
	}
}

// pass plans once and applies once; true when nothing failed.
func (o *Overlay) pass(ctx context.Context) bool {
	o.mu.Lock()
	o.holdPublished()
	covers, want := o.wanted, o.plan()
	o.mu.Unlock()

	began := time.Now()
	res := o.opt.Kernel.Apply(ctx, want)
	now := time.Now()
	if o.opt.Passed != nil {
		o.opt.Passed(now.Sub(began))
	}

	o.mu.Lock()
	before := o.failed
	o.done, o.failed = covers, res.Failed
	o.handOver(want, res.Failed)
	o.loop.note(began, now, res.Repaired)
	close(o.passed)
	o.passed = make(chan struct{})
	o.mu.Unlock()
	o.tell(before, res)
	return len(res.Failed) == 0
}

// tell logs what a pass repaired, and failures that are news.
func (o *Overlay) tell(before []kernel.Failure, res kernel.Result) {
	for _, kind := range slices.Sorted(maps.Keys(res.Repaired)) {
		count := res.Repaired[kind]
		o.opt.Log.Info("repaired what others changed", "kind", kind, "count", count)
	}
	for _, note := range res.Notes {
		o.opt.Log.Info(note)
	}
	known := map[string]bool{}
	for _, f := range before {
		known[f.Object+f.Err.Error()] = true
	}
	for _, f := range res.Failed {
		if !known[f.Object+f.Err.Error()] {
			o.opt.Log.Error("kernel refuses", "object", f.Object, "error", f.Err)
		}
	}
}

// allowForwarding lets the plan turn ip_forward on. Until the engine is known
// to be up it is left to the engine, which sets its FORWARD policy to DROP
// only where it turns forwarding on itself.
func (o *Overlay) allowForwarding() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forward = true
}

// backoff doubles from min to max.
type backoff struct{ min, max, now time.Duration }

func (b *backoff) next() time.Duration {
	b.now = min(max(2*b.now, b.min), b.max)
	return b.now
}

func (b *backoff) reset() { b.now = 0 }
