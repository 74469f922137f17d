package overlay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// rest is how soon an unused subnet may be handed out again. Engines up to 26
// ask again at once, without end, when the subnet overlaps a route or a name
// server of the host; a person does not. It is longer than any call takes, so a
// create that is slow between its two calls keeps its subnet.
const rest = 12 * time.Second

// Acquire gives the host's subnet of a network to the engine's address
// manager, claiming it in the store where it is not held yet. One Docker
// network a host may hold it at a time.
func (o *Overlay) Acquire(ctx context.Context, req Request) (Network, error) {
	if req.IPv6 {
		return o.acquireIPv6(req)
	}
	req, err := o.resolve(ctx, req)
	if err != nil {
		return Network{}, err
	}
	n, err := o.enter(ctx, req.Name)
	if err != nil {
		return Network{}, err
	}
	defer o.exit(n)
	o.mu.Lock()
	err = o.available(n)
	known := n.record
	o.mu.Unlock()
	if err != nil {
		return Network{}, err
	}
	claimed, err := o.claim(ctx, known, req)
	if err != nil {
		return Network{}, fmt.Errorf("claim a subnet of %s: %w", title(req.Name), err)
	}
	o.leaveOld(ctx, known, claimed)
	view := o.hold(n, claimed)
	err = o.save()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		o.letGo(n)
		return Network{}, fmt.Errorf("save the lease of %s: %w", view.Subnet, errors.Join(err, o.save()))
	}
	return view, nil
}

// hold takes over what was claimed.
func (o *Overlay) hold(n *network, claimed record) Network {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !n.Leased || n.Subnet != claimed.Subnet {
		n.Since = time.Now().UTC()
	}
	n.Config, n.Subnet, n.VTEP = claimed.Config, claimed.Subnet, claimed.VTEP
	n.IPv6Subnet, n.IPv6VTEP = claimed.IPv6Subnet, claimed.IPv6VTEP
	n.Underlay, n.Former, n.MTU = claimed.Underlay, claimed.Former, claimed.MTU
	if !n.Leased {
		n.Leased, n.idle = true, make(chan struct{})
	}
	n.Held, n.handed = true, time.Now()
	nudge(n.turn)
	nudge(o.arrived)
	return n.view()
}

// letGo undoes hold; the lease is given back in the background.
func (o *Overlay) letGo(n *network) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n.Held = false
	nudge(n.turn)
}

// leaveOld gives back the subnet that another one has taken the place of. What
// cannot be given back now ends with its time to live.
func (o *Overlay) leaveOld(ctx context.Context, old, now record) {
	if !old.Leased || old.Subnet == now.Subnet && old.IPv6Subnet == now.IPv6Subnet {
		return
	}
	lease := Lease{Subnet: old.Subnet, IPv6Subnet: old.IPv6Subnet, PublicIP: old.Underlay.PublicIP}
	if err := o.opt.Store.Release(ctx, old.Name, lease); err != nil {
		o.opt.Log.Warn("the host's other lease stays until its time to live ends", "subnet", old.Subnet, "error", err)
	}
}

// enter begins a claim or a release of a network, known before or not; exit
// must follow.
func (o *Overlay) enter(ctx context.Context, name string) (*network, error) {
	for {
		n := o.reserve(name)
		if err := n.enter(ctx); err != nil {
			return nil, err
		}
		o.mu.Lock()
		known := o.nets[name] == n
		o.mu.Unlock()
		if known {
			return n, nil
		}
		n.leave() // the call before this one has forgotten it
	}
}

// exit ends what enter began. A network that nothing came of is forgotten.
func (o *Overlay) exit(n *network) {
	o.mu.Lock()
	if n.blank() {
		delete(o.nets, n.Name)
	}
	o.mu.Unlock()
	n.leave()
}

// reserve finds the network or begins to know it.
func (o *Overlay) reserve(name string) *network {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.nets[name] == nil {
		o.nets[name] = newNetwork(record{Name: name})
	}
	return o.nets[name]
}

// available refuses a second Docker network on one lease; the caller holds mu.
func (o *Overlay) available(n *network) error {
	if n.Docker != nil {
		return fmt.Errorf("%s (subnet %s) is used on this host by Docker network %s already; one Docker network per host and flannel network: use that one, or remove it first with: docker network rm %s",
			title(n.Name), n.Subnet, head(n.Docker.ID), head(n.Docker.ID))
	}
	if n.Held && time.Since(n.handed) < rest {
		return fmt.Errorf("subnet %s of %s was handed out %s ago and is not in use yet: another docker network create is under way, or the subnet overlaps a route (ip route) or a name server (/etc/resolv.conf) of this host; look there, or try again in %s",
			n.Subnet, title(n.Name), time.Since(n.handed).Round(time.Millisecond), (rest - time.Since(n.handed)).Round(time.Second))
	}
	return nil
}

// claim reads the network's config and claims a lease that fits the request.
func (o *Overlay) claim(ctx context.Context, r record, req Request) (record, error) {
	initial, err := o.initial(req)
	if err != nil {
		return r, err
	}
	cfg, err := o.opt.Store.Config(ctx, req.Name, initial)
	if err != nil {
		return r, err
	}
	if req.Backend != "" && req.Backend != cfg.Backend.Type {
		return r, fmt.Errorf("--ipam-opt backend=%s: the network was made with %s; leave the option out, or give that", req.Backend, cfg.Backend.Type)
	}
	r.Config = cfg
	must, err := wantSubnet(cfg, req.Subnet)
	if err != nil {
		return r, err
	}
	under, err := o.opt.Kernel.Underlay(o.opt.Underlay)
	if err != nil {
		return r, err
	}
	earlier := r.IPv6Subnet
	r.IPv6Subnet = netip.Prefix{}
	r.move(under)
	for _, mac := range []*kernel.MAC{&r.VTEP, &r.IPv6VTEP} {
		if mac.IsZero() {
			*mac = randomMAC()
		}
	}
	claim, mtu, err := o.offer(r)
	if err != nil {
		return r, err
	}
	if err := o.roomFor(r); err != nil {
		return r, err
	}
	if r.Leased {
		if err := o.avoid(r.Subnet); err != nil {
			return r, err
		}
	}
	r.MTU = mtu
	claim.Prefer, claim.Must, claim.PreferIPv6 = r.Subnet, false, earlier
	if o.lacksIPv6(r) != nil {
		claim = claim.ipv4()
	}
	if must.IsValid() {
		claim.Prefer, claim.Must = must, true
	}
	claim.Avoid = o.avoid
	lease, err := o.opt.Store.Claim(ctx, req.Name, claim)
	if taken := (*TakenError)(nil); errors.As(err, &taken) && claim.Must {
		return r, fmt.Errorf("--subnet %s: %w; give another one or leave it out", must, err)
	}
	if err != nil {
		return r, err
	}
	r.Subnet, r.IPv6Subnet, r.Former = lease.Subnet, lease.IPv6Subnet, netip.Addr{}
	return r, nil
}

// roomFor refuses a network whose devices another program has made already.
// Its lease may be that program's, and must not be touched.
func (o *Overlay) roomFor(r record) error {
	backend, err := o.backend(r.Config.Backend.Type)
	if err != nil {
		return err
	}
	n := network{record: r}
	plan, _ := backend.Plan(n.self(), nil)
	devices := make([]string, len(plan.Links))
	for i, l := range plan.Links {
		devices[i] = l.Name
	}
	conflict, err := o.opt.Kernel.Conflict(netip.Prefix{}, devices...)
	if err != nil {
		return fmt.Errorf("look for devices named %s: %w", strings.Join(devices, ", "), err)
	}
	if conflict != "" {
		return fmt.Errorf("in the way is %s", conflict)
	}
	return nil
}

// wantSubnet turns --subnet into the subnet that must be claimed; zero for any.
func wantSubnet(cfg Config, asked netip.Prefix) (netip.Prefix, error) {
	if !asked.IsValid() || asked == cfg.Network {
		return netip.Prefix{}, nil
	}
	if !cfg.Network.Overlaps(asked) {
		return netip.Prefix{}, fmt.Errorf("--subnet %s does not lie in the flannel network %s; leave it out, give %s to allow --ip, or give a name that no network has with --ipam-opt network=NAME",
			asked, cfg.Network, cfg.Network)
	}
	if err := cfg.Fits(asked); err != nil {
		return netip.Prefix{}, fmt.Errorf("--subnet %s: %w; leave it out, give %s to allow --ip, or one of its subnets of length %d",
			asked, err, cfg.Network, cfg.SubnetLen)
	}
	return asked, nil
}

// offer is the claim that r's host makes, and the MTU of its containers.
func (o *Overlay) offer(r record) (Claim, int, error) {
	if !r.Config.EnableIPv4 {
		return Claim{}, 0, errors.New("the network's config has EnableIPv4 false: Docker engines up to 27 need IPv4 on every network, so IPv6 comes only beside it; give the config in etcd EnableIPv4 true and a Network")
	}
	r.Docker = nil // what a host publishes does not depend on it
	backend, err := o.backend(r.Config.Backend.Type)
	if err != nil {
		return Claim{}, 0, err
	}
	n := network{record: r}
	pub, err := backend.Publish(n.self())
	if err != nil {
		return Claim{}, 0, fmt.Errorf("backend %s: %w", r.Config.Backend.Type, err)
	}
	mtu := pub.MTU - pub.Overhead
	if o.opt.MTU > mtu {
		return Claim{}, 0, fmt.Errorf("setting MTU=%d: backend %s carries at most %d bytes here (%d of %s less %d); give that or less, or 0",
			o.opt.MTU, r.Config.Backend.Type, mtu, pub.MTU, r.Underlay.Name, pub.Overhead)
	}
	if o.opt.MTU > 0 {
		mtu = o.opt.MTU
	}
	claim := Claim{
		PublicIP: r.Underlay.PublicIP, Former: r.Former, BackendType: pub.Type, BackendData: pub.Data, TTL: o.opt.TTL,
	}
	if r.Config.EnableIPv6 && pub.NoIPv6 == nil {
		claim.IPv6, claim.PublicIPv6, claim.BackendV6Data = true, r.Underlay.IPv6.PublicIP, pub.IPv6Data
	}
	return claim, mtu, nil
}

// backend finds a backend by its name in flannel's config.
func (o *Overlay) backend(name string) (Backend, error) {
	if b := o.opt.Backends[name]; b != nil {
		return b, nil
	}
	known := make([]string, 0, len(o.opt.Backends))
	for k := range o.opt.Backends {
		known = append(known, k)
	}
	slices.Sort(known)
	return nil, fmt.Errorf("backend %q is not supported; supported: %s", name, strings.Join(known, ", "))
}

// avoid tells why this host cannot use a subnet.
func (o *Overlay) avoid(p netip.Prefix) error {
	conflict, err := o.opt.Kernel.Conflict(p)
	if err != nil {
		return fmt.Errorf("look for routes that overlap %s: %w", p, err)
	}
	if conflict != "" {
		return fmt.Errorf("subnet %s overlaps %s; remove that, or give another one with --subnet", p, conflict)
	}
	return nil
}

// randomMAC makes a unicast, locally administered address.
func randomMAC() kernel.MAC {
	var m kernel.MAC
	_, _ = rand.Read(m[:]) // crypto/rand never returns an error
	m[0] = m[0]&^1 | 2
	return m
}

// Attached tells whether a Docker network stands on the subnet.
func (o *Overlay) Attached(subnet netip.Prefix) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.bySubnet(subnet)
	return n != nil && n.Docker != nil && (n.Docker.Subnet == subnet || n.Docker.IPv6Subnet == subnet)
}

// Taken tells whether a port has the address.
func (o *Overlay) Taken(subnet netip.Prefix, addr netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.bySubnet(subnet)
	return n != nil && slices.ContainsFunc(n.Ports, func(p Port) bool { return p.has(addr) })
}

// Release ends the address manager's use of a subnet. The lease is given back
// once the Docker network is gone too. An IPv6 subnet goes with the IPv4 one of
// its lease.
func (o *Overlay) Release(ctx context.Context, subnet netip.Prefix) error {
	if subnet.Addr().Is6() {
		return nil
	}
	o.mu.Lock()
	n := o.bySubnet(subnet)
	if n == nil {
		o.mu.Unlock()
		return nil
	}
	n.Held = false
	o.mu.Unlock()
	if err := o.save(); err != nil {
		return fmt.Errorf("save the release of %s: %w", subnet, err)
	}
	return o.giveBack(ctx, n)
}

// patience is how long a call waits for the store to take a lease back; after
// it the lease is given back in the background.
const patience = 3 * time.Second

// giveBack waits a moment for the lease of an unused network to be gone.
func (o *Overlay) giveBack(ctx context.Context, n *network) error {
	o.mu.Lock()
	used, idle, subnet := n.used(), n.idle, n.Subnet
	o.mu.Unlock()
	if used {
		return nil
	}
	nudge(n.turn)
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-idle:
	case <-late.C:
		o.opt.Log.Warn("lease not given back yet, trying on", "subnet", subnet)
	case <-ctx.Done():
	}
	return nil
}
