package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	api "github.com/docker/go-plugins-helpers/ipam"

	clerk "github.com/docker-flannel/docker-flannel/ipam"
	"github.com/docker-flannel/docker-flannel/overlay"
)

const (
	// sweepEvery is the time between two looks. What the engine did not know
	// in two of them is reclaimed: a container that is being started has its
	// endpoint here a moment before the engine shows it.
	sweepEvery = 15 * time.Second
	// engineTimeout bounds a call to the engine, which at its start holds
	// calls back for as long as it starts containers.
	engineTimeout = 10 * time.Second
)

// engine is what the sweep asks of Docker's API.
type engine interface {
	knower
	NetworkInspect(ctx context.Context, id string, options network.InspectOptions) (network.Inspect, error)
}

// sweeper takes back endpoints, addresses and networks that the engine has
// forgotten, because it could not reach the plugin when they went. It is no
// part of any call: an engine that waits for the plugin answers nobody.
type sweeper struct {
	engine  engine
	overlay books
	ipam    addresses
	log     *slog.Logger
	self    string               // this plugin's id
	ours    bool                 // the engine is the one that runs this plugin
	warned  string               // of what keeps from sweeping
	suspect map[string]time.Time // what the engine did not know in the last round, and since when
}

// books is what the sweep asks of the overlay room.
type books interface {
	Attachments() []overlay.Attachment
	RemovePort(ctx context.Context, network, endpoint string) error
	Detach(ctx context.Context, id string) error
}

// addresses is what the sweep asks of the address clerk.
type addresses interface {
	Addresses() map[netip.Prefix][]clerk.Holding
	Reclaim(subnet netip.Prefix, h clerk.Holding, unasked time.Time) (bool, error)
	ReleasePool(ctx context.Context, req *api.ReleasePoolRequest) error
}

// dialEngine prepares the way to the engine's API.
func dialEngine(socket string) (*client.Client, error) {
	c, err := client.NewClientWithOpts(client.WithHost("unix://"+socket), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to the engine at %s: %w", socket, err)
	}
	return c, nil
}

// run sweeps until ctx ends.
func (s *sweeper) run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.round(ctx, time.Now())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// round looks once and reclaims what was suspect before.
func (s *sweeper) round(ctx context.Context, now time.Time) {
	before := s.suspect
	s.suspect = map[string]time.Time{}
	if !s.ours {
		if err := recognise(ctx, s.engine, s.self); err != nil {
			if err.Error() != s.warned {
				s.log.Warn("nothing is reclaimed of what the engine forgets", "error", err)
			}
			s.warned = err.Error()
			return
		}
		s.ours = true
	}
	held := s.ipam.Addresses()
	for _, a := range s.overlay.Attachments() {
		mine := slices.Concat(held[a.Subnet], held[a.IPv6Subnet])
		known, err := s.ask(ctx, a.ID)
		if err != nil {
			s.log.Debug("the engine does not tell what it knows of a network", "network", a.ID, "error", err)
			continue
		}
		check := func(what string, reclaim func(since time.Time) error) {
			since, again := before[what]
			if !again {
				s.suspect[what] = now
				return
			}
			if err := reclaim(since); err != nil {
				s.log.Warn("not reclaimed, trying on", "what", what, "error", err)
				s.suspect[what] = since
			}
		}
		if known == nil {
			check("network "+a.ID, func(time.Time) error { return s.drop(ctx, a) })
			continue
		}
		for _, p := range a.Ports {
			if !known.endpoints[p.Endpoint] {
				check("endpoint "+p.Endpoint, func(since time.Time) error { return s.dropPort(ctx, a, p, mine, since) })
			}
		}
		for _, h := range mine {
			if h.Owner != "" && !known.addrs[h.Addr] && !a.Holds(h.Addr) {
				check(fmt.Sprintf("address %s of %s", h.Addr, h.Owner), func(since time.Time) error { return s.dropAddr(a, h, since) })
			}
		}
	}
}

// knower is an engine that knows its plugins.
type knower interface {
	PluginInspectWithRaw(ctx context.Context, name string) (*types.Plugin, []byte, error)
}

// recognise fails unless the engine that answers is the one that runs this
// plugin, whose id is self: another knows none of our networks.
func recognise(ctx context.Context, engine knower, self string) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	const mend = "the directory that holds the docker.sock of this plugin's engine is given with: docker plugin set docker-flannel run.source=DIRECTORY"
	if self == "" {
		return errors.New("this process is no managed plugin, so its engine is not known")
	}
	_, _, err := engine.PluginInspectWithRaw(ctx, self)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("the engine at run.source does not run this plugin (%.12s): %s", self, mend)
	}
	if err != nil {
		return fmt.Errorf("the engine does not answer: %w; %s", err, mend)
	}
	return nil
}

// pluginID finds a managed plugin's id in the table of its mounts, by where the
// engine keeps what lies at the path; empty for no managed plugin.
func pluginID(mountinfo, path string) string {
	for line := range strings.SplitSeq(mountinfo, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[4] != path {
			continue
		}
		if id := pluginRoot.FindStringSubmatch(fields[3]); id != nil {
			return id[1]
		}
	}
	return ""
}

var pluginRoot = regexp.MustCompile(`/plugins/([0-9a-f]{64})/propagated-mount$`)

// view is what the engine knows of a network.
type view struct {
	endpoints map[string]bool
	addrs     map[netip.Addr]bool
}

// ask returns nil where the engine knows no such network.
func (s *sweeper) ask(ctx context.Context, id string) (*view, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	found, err := s.engine.NetworkInspect(ctx, id, network.InspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v := &view{endpoints: map[string]bool{}, addrs: map[netip.Addr]bool{}}
	for _, c := range found.Containers {
		v.endpoints[c.EndpointID] = true
		for _, addr := range []string{c.IPv4Address, c.IPv6Address} {
			if p, err := netip.ParsePrefix(addr); err == nil {
				v.addrs[p.Addr()] = true
			}
		}
	}
	return v, nil
}

// drop removes a Docker network; the lease goes with it. The pool goes first:
// once the network is gone, the next one may have the same subnet.
func (s *sweeper) drop(ctx context.Context, a overlay.Attachment) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	for _, subnet := range []netip.Prefix{a.IPv6Subnet, a.Subnet} {
		if !subnet.IsValid() {
			continue
		}
		if err := s.ipam.ReleasePool(ctx, &api.ReleasePoolRequest{PoolID: subnet.String()}); err != nil {
			return err
		}
	}
	if err := s.overlay.Detach(ctx, a.ID); err != nil {
		return err
	}
	s.log.Warn("a network that the engine has forgotten was removed", "network", a.ID, "subnet", a.Subnet, "ports", len(a.Ports))
	return nil
}

// dropPort removes an endpoint and its address.
func (s *sweeper) dropPort(ctx context.Context, a overlay.Attachment, p overlay.Port, held []clerk.Holding, since time.Time) error {
	if err := s.overlay.RemovePort(ctx, a.ID, p.Endpoint); err != nil {
		return err
	}
	s.log.Info("an endpoint that the engine has forgotten was removed", "endpoint", p.Endpoint, "address", p.Addr)
	var errs []error
	for _, h := range held {
		if h.Addr == p.Addr || h.Addr == p.IPv6 {
			errs = append(errs, s.dropAddr(a, h, since))
		}
	}
	return errors.Join(errs...)
}

func (s *sweeper) dropAddr(a overlay.Attachment, h clerk.Holding, since time.Time) error {
	subnet := a.Subnet
	if h.Addr.Is6() {
		subnet = a.IPv6Subnet
	}
	freed, err := s.ipam.Reclaim(subnet, h, since)
	if freed {
		s.log.Info("an address that no container has is free again", "address", h.Addr, "mac", h.Owner)
	}
	return err
}
