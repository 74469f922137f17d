// Package plugin is the door: it reads the settings, wires the rooms together,
// and serves the engine's calls on the managed plugin's socket and on a second
// one by which -d flannel finds the driver.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/docker-flannel/docker-flannel/driver"
	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/ipam"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/embedded"
	"github.com/docker-flannel/docker-flannel/overlay/etcd"
	"github.com/docker-flannel/docker-flannel/overlay/hostgw"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
	"github.com/docker-flannel/docker-flannel/overlay/probe"
	"github.com/docker-flannel/docker-flannel/overlay/udp"
	"github.com/docker-flannel/docker-flannel/overlay/vxlan"
)

// backends are the ways of carrying packets, by their names in flannel's
// config.
var backends = map[string]overlay.Backend{
	hostgw.Type: hostgw.Backend{},
	udp.Type:    udp.Backend{},
	vxlan.Type:  vxlan.Backend{},
}

func backendNames() []string { return slices.Sorted(maps.Keys(backends)) }

// Paths are where things lie inside the plugin's root folder.
type Paths struct {
	State   string // of the state files, kept over upgrades
	Managed string // socket of the managed plugin
	Legacy  string // socket by which the plain name flannel is found
	SysNet  string // the host's /proc/sys/net
	Engine  string // socket of the engine's API
}

// DefaultPaths are those of config.json.
var DefaultPaths = Paths{
	State:   "/data",
	Managed: "/run/docker/plugins/flannel.sock",
	Legacy:  "/host/plugins/flannel.sock",
	SysNet:  "/host/sysnet",
	Engine:  "/host/run/docker.sock",
}

const (
	// drain is how long calls under way may take at a stop; the engine kills
	// the plugin after 10 s.
	drain = 5 * time.Second
	// dialTimeout and callTimeout keep a call to etcd well inside deadline.
	dialTimeout = 2 * time.Second
	callTimeout = 3 * time.Second
)

// Run serves until ctx ends. The data path stays: running containers keep
// talking while the plugin is stopped or upgraded. Where the plugin cannot
// work, every call is answered with the reason.
func Run(ctx context.Context, paths Paths, log *slog.Logger, level *slog.LevelVar) error {
	doors, err := listen(ctx, paths, log)
	if err != nil {
		return err
	}
	defer doors.close()
	recent := &ring{}
	log = keeping(log, recent)
	settings, err := ReadSettings(os.LookupEnv)
	if err != nil {
		return serveBroken(ctx, doors, settings, recent, log, err)
	}
	level.Set(settings.LogLevel)
	settings.warn(log)
	p, err := build(paths, settings, log)
	if err != nil {
		return serveBroken(ctx, doors, settings, recent, log, err)
	}
	defer p.close()
	watch := p.monitor(settings, doors, recent, log)
	status := func() report.Status { return p.status(watch) }
	watch.status = status
	p.metrics.status = status
	op := &operator{status: status, store: p.store, overlay: p.overlay, audit: p.audit, recent: recent, log: log}
	if p.syncer != nil {
		op.shared = p.shared
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return doors.serve(ctx, op.beside(measured(routes(p.driver, p.ipam, log), p.metrics.called)))
	})
	g.Go(func() error { return p.overlay.Run(ctx) })
	g.Go(func() error { return p.sweeper.run(ctx) })
	g.Go(func() error { return p.pulse.run(ctx) })
	g.Go(func() error { return watch.run(ctx) })
	if p.embedded != nil {
		g.Go(func() error { return p.embedded.run(ctx) })
	}
	if p.syncer != nil {
		g.Go(func() error { return p.syncer.run(ctx) })
	}
	log.Info("serving", "sockets", doors.paths())
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// serveBroken answers every call with why.
func serveBroken(ctx context.Context, doors *doors, s Settings, recent *ring, log *slog.Logger, why error) error {
	log.Error("the plugin cannot work until this is mended", "error", why)
	status := brokenStatus(why)
	why = fmt.Errorf("%w (mend it with: docker plugin disable -f docker-flannel; docker plugin set docker-flannel NAME=VALUE; docker plugin enable docker-flannel)", why)
	m := newMetrics()
	m.status = func() report.Status { return status }
	watch := &monitor{addr: s.Metrics, metrics: m, status: m.status, recent: recent, alive: doors.check, log: log}
	op := &operator{status: m.status, recent: recent, why: why, log: log}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return doors.serve(ctx, op.beside(broken(why))) })
	g.Go(func() error { return watch.run(ctx) })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// parts are the rooms, wired together.
type parts struct {
	overlay  *overlay.Overlay
	driver   *driver.Clerk
	ipam     *ipam.Clerk
	sweeper  *sweeper
	syncer   *syncer // nil without SYNC_NETWORKS
	pulse    *pulse
	embedded *keeper // nil with an etcd of one's own
	store    registry
	shared   dockerStore
	link     *link
	metrics  *metrics
	foreign  func() (map[int]uint64, error)
	audit    func(context.Context) ([]report.Difference, error)
	close    func()
}

// build makes the rooms; it starts nothing.
func build(paths Paths, s Settings, log *slog.Logger) (*parts, error) {
	p := &parts{metrics: newMetrics()}
	client, err := p.openStore(paths, s, log)
	if err != nil {
		return nil, err
	}
	kern, err := kernel.Open(kernel.Options{SysNet: paths.SysNet, Log: log})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink: %w", err), client.Close())
	}
	engine, err := dialEngine(paths.Engine)
	if err != nil {
		return nil, errors.Join(err, kern.Close(), client.Close())
	}
	p.close = func() {
		if err := errors.Join(engine.Close(), kern.Close(), client.Close()); err != nil {
			log.Warn("close", "error", err)
		}
	}
	p.metrics.traffic, p.foreign = kern.Traffic, kern.Foreign
	p.overlay, err = overlay.New(overlay.Options{
		Dir: paths.State, Store: p.store, Kernel: kern, Backends: backends,
		Initial: s.Config, Pool: s.Pool, Underlay: kernel.UnderlaySpec{Iface: s.Iface, PublicIP: s.PublicIP, PublicIPv6: s.PublicIPv6},
		MTU: s.MTU, TTL: s.LeaseTTL, Probe: probe.UDP{}, Release: kernel.Release(), Ports: kern, Passed: p.metrics.passed, Log: log,
	})
	if err == nil {
		p.ipam, err = ipam.New(paths.State+"/addresses.json", p.overlay)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	p.driver = driver.New(p.overlay, p.overlay, p.ipam)
	p.pulse = newPulse(p.overlay.Report, log)
	p.audit = func(ctx context.Context) ([]report.Difference, error) {
		return audit(ctx, p.overlay.Wanted, kern.Audit)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		log.Warn("read this process' mounts", "error", err)
	}
	self := pluginID(string(mounts), paths.State)
	p.sweeper = &sweeper{engine: engine, overlay: p.overlay, ipam: p.ipam, self: self, log: log}
	if s.Sync {
		if p.syncer, err = newSyncer(paths.State+"/synced.json", log); err != nil {
			p.close()
			return nil, err
		}
		p.syncer.engine, p.syncer.shared, p.syncer.host, p.syncer.ttl = dockerd{engine, self}, p.shared, p.overlay.Report, max(s.LeaseTTL, noteTTL)
	}
	return p, nil
}

// openStore makes the way to the cluster's truth, and returns what closes it.
func (p *parts) openStore(paths Paths, s Settings, log *slog.Logger) (io.Closer, error) {
	endpoints := s.Endpoints
	if len(endpoints) == 0 {
		opt := embeddedOptions(paths.State, s, log)
		p.embedded = newKeeper(opt, log)
		endpoints = []string{embedded.New(opt).Endpoint()}
	}
	client, err := etcd.Dial(dialOptions(s, endpoints))
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to etcd: %w", err)
	}
	p.link = newLink(endpoints, p.embedded)
	store := etcd.New(client, s.Prefix, etcd.WithLogger(log), etcd.WithHealth(p.link.saw))
	p.store, p.shared = store, store
	if p.embedded != nil {
		p.store, p.shared = gated{store, p.embedded}, gatedSharer{store, p.embedded}
	}
	p.store = watched{p.store, p.link, p.metrics.asked}
	return client, nil
}

// server serves the engine's calls, every one with h. It keeps a connection
// that waits for a call: the engine's next call on it would fail otherwise, and
// be repeated without its body.
func server(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: deadline, DisableGeneralOptionsHandler: true}
}
