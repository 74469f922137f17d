package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Outside is what can be known without the running plugin.
type Outside interface {
	// Host is what the state files say, and how the kernel differs from it.
	Host(ctx context.Context) (report.Host, []report.Difference, error)
	// Endpoints asks every etcd endpoint.
	Endpoints(ctx context.Context) []report.Endpoint
	// Clusters lists every network's leases.
	Clusters(ctx context.Context) ([]report.Cluster, error)
	// Keys are those in etcd, with their values.
	Keys(ctx context.Context) (string, error)
	// Forget deletes the lease of a host that is gone for good.
	Forget(ctx context.Context, network string, l report.ClusterLease) error
}

// Opener makes an Outside of the plugin's settings, the folder of its state
// files, and that of its certificates.
type Opener func(settings func(string) (string, bool), state, certs string) (Outside, error)

// Options are the world around the doctor; the zero value of a path means the
// usual one.
type Options struct {
	Plugin string // socket
	Engine string // socket
	Open   Opener
	Tool   string // how this program is called
}

const (
	pluginName   = "docker-flannel"
	pluginSocket = "/run/docker/plugins/flannel.sock"
	engineSocket = "/var/run/docker.sock"
)

func (o Options) defaults() Options {
	if o.Plugin == "" {
		o.Plugin = pluginSocket
	}
	if o.Tool == "" {
		o.Tool = "flannel"
	}
	if o.Engine == "" {
		o.Engine = engineSocket
	}
	return o
}

// visit is one look at a host.
type visit struct {
	Options
	world   *World
	engine  enginePlugin
	outside Outside // nil where the settings are not known
	why     string  // why not
}

// Look reads the world. Nothing that fails keeps it from the rest.
func Look(ctx context.Context, o Options) *World { return look(ctx, o).world }

func look(ctx context.Context, o Options) *visit {
	o = o.defaults()
	v := &visit{Options: o, world: &World{Tool: o.Tool}}
	v.askEngine(ctx)
	v.askPlugin(ctx)
	var g errgroup.Group
	g.Go(func() error { v.askStore(ctx); return nil })
	g.Go(func() error { v.readKernel(ctx); return nil })
	_ = g.Wait() // none of them returns an error
	v.probe(ctx)
	return v
}

// askEngine finds the plugin's settings and files.
func (v *visit) askEngine(ctx context.Context) {
	p := &v.world.Plugin
	p.Name = pluginName
	found, root, err := askEngine(ctx, v.Engine, pluginName)
	if err != nil {
		p.Engine, v.why = err.Error(), "the plugin's settings are not known: "+err.Error()
		return
	}
	v.engine = found
	p.Installed, p.Enabled = found.ID != "", found.Enabled
	if !p.Installed {
		v.why = "the plugin is not installed"
		return
	}
	env := found.env()
	state := filepath.Join(root, "plugins", found.ID, "propagated-mount")
	lookup := func(name string) (string, bool) { value, ok := env[name]; return value, ok }
	if v.outside, err = v.Open(lookup, state, found.mount("certs")); err != nil {
		v.outside, v.why = nil, "the plugin's settings: "+err.Error()
	}
	p.Embedded = env["ETCD_ENDPOINTS"] == ""
}

// askPlugin asks the plugin what it does, and reads its files where it does not
// answer.
func (v *visit) askPlugin(ctx context.Context) {
	w := v.world
	var status report.Status
	if err := ask(ctx, v.Plugin, "/flannel/v1/status", &status); err != nil {
		w.Plugin.Error = err.Error()
		v.readFiles(ctx)
		return
	}
	w.Host, w.Problems, w.Plugin.Version = status.Host, status.Problems, status.Build.Version
	if status.Loop.Started.IsZero() {
		v.readFiles(ctx) // it cannot work, and its problems say why
		return
	}
	if err := ask(ctx, v.Plugin, "/flannel/v1/audit", &w.Audit); err != nil {
		w.AuditErr = err.Error()
	}
}

// readFiles goes by the plugin's state files.
func (v *visit) readFiles(ctx context.Context) {
	w := v.world
	if v.outside == nil {
		w.HostErr, w.AuditErr = v.why, v.why
		return
	}
	var err error
	if w.Host, w.Audit, err = v.outside.Host(ctx); err != nil {
		w.HostErr, w.AuditErr = err.Error(), err.Error()
	}
}

// askStore asks etcd, by the plugin's settings but not through it.
func (v *visit) askStore(ctx context.Context) {
	w := v.world
	if v.outside == nil {
		w.EtcdErr, w.StoreErr = v.why, v.why
		return
	}
	w.Endpoint = v.outside.Endpoints(ctx)
	alive := false
	for _, e := range w.Endpoint {
		alive = alive || e.Error == ""
	}
	if !alive {
		w.StoreErr = "etcd does not answer"
		return
	}
	var err error
	if w.Clusters, err = v.outside.Clusters(ctx); err != nil {
		w.StoreErr = err.Error()
	}
}

// readKernel reads the host's own network.
func (v *visit) readKernel(ctx context.Context) {
	k := &v.world.Kernel
	k.Release = kernel.Release()
	k.Features = map[string]string{}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	features, err := kernel.Features(ctx)
	for name, said := range features {
		k.Features[name] = ""
		if said != nil {
			k.Features[name] = said.Error()
		}
	}
	if err != nil {
		k.FeaturesErr = err.Error()
	}
	hand, err := kernel.Open(kernel.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		k.Error = err.Error()
		return
	}
	defer func() { _ = hand.Close() }() // it was only read
	keys := []string{"ipv4/ip_forward", bridgeKey(false), bridgeKey(true), "ipv4/conf/all/rp_filter"}
	for _, name := range v.world.carriers() {
		keys = append(keys, "ipv4/conf/"+name+"/rp_filter")
	}
	var errs [2]error
	k.Sysctls, errs[0] = hand.Sysctls(keys...)
	k.Interfaces, errs[1] = hand.Interfaces()
	if err := errors.Join(errs[:]...); err != nil {
		k.Error = err.Error()
	}
	k.Legacy, k.LegacyWhy = hand.LegacyMending()
	for _, wall := range packets(v.world) {
		obstacles, err := hand.Obstacles(wall.Packet)
		wall.Obstacles = obstacles
		if err != nil {
			wall.Error = err.Error()
		}
		k.Walls = append(k.Walls, wall)
	}
}

// packets are those that must pass this host's firewalls.
func packets(w *World) []Wall {
	var out []Wall
	for _, n := range w.networks() {
		four := lane{subnet: n.Subnet, device: n.Device, port: uint16(n.Port), local: w.local(n.PublicIP)}
		if n.Port == 0 {
			four.device = n.Interface
		}
		if len(n.Peers) > 0 {
			four.far, four.peer = n.Peers[0].Subnet, n.Peers[0].PublicIP
		}
		out = append(out, four.packets(n)...)
		if n.IPv6Device == "" {
			continue
		}
		six := lane{subnet: n.IPv6Subnet, device: n.IPv6Device, local: w.local(n.PublicIPv6)}
		if n.Port == 0 {
			six.device = n.Interface
		}
		if n.Backend == "vxlan" {
			six.port = uint16(n.Port)
		}
		if i := slices.IndexFunc(n.Peers, func(p report.Peer) bool { return p.IPv6Subnet.IsValid() }); i >= 0 {
			six.far, six.peer = n.Peers[i].IPv6Subnet, n.Peers[i].PublicIPv6
		}
		out = append(out, six.packets(n)...)
	}
	return out
}

// lane is where packets of one family pass this host; what is zero is not known.
type lane struct {
	subnet, far netip.Prefix // this host's and another's
	device      string       // that leads to the other
	port        uint16       // UDP, of a tunnel of this family; 0 without one
	local, peer netip.Addr   // of the tunnel's ends
}

// packets are those of a lane.
func (l lane) packets(n report.Network) []Wall {
	six, name, icmp := l.subnet.Addr().Is6(), "", byte(unix.IPPROTO_ICMP)
	if six {
		name, icmp = ", IPv6", unix.IPPROTO_ICMPV6
	}
	near, far := l.subnet.Addr().Next().Next(), netip.Addr{}
	if l.far.IsValid() {
		far = l.far.Addr().Next().Next()
	}
	var out []Wall
	add := func(check, subject string, p kernel.Packet) {
		p.IPv6 = six
		out = append(out, Wall{Check: check, Subject: subject + name, Packet: p})
	}
	add("forward", fmt.Sprintf("%s to %s", n.Bridge, l.device),
		kernel.Packet{Way: kernel.Across, In: n.Bridge, Out: l.device, Src: near, Dst: far, Proto: icmp})
	add("forward", fmt.Sprintf("%s to %s", l.device, n.Bridge),
		kernel.Packet{Way: kernel.Across, In: l.device, Out: n.Bridge, Src: far, Dst: near, Proto: icmp})
	add("br_netfilter", n.Bridge,
		kernel.Packet{Way: kernel.Across, In: n.Bridge, Out: n.Bridge, Src: near, Dst: near.Next(), Proto: icmp})
	if l.port != 0 {
		add("firewall", fmt.Sprintf("UDP port %d, in", l.port),
			kernel.Packet{Way: kernel.Inward, In: n.Interface, Src: l.peer, Dst: l.local, Proto: unix.IPPROTO_UDP, Port: l.port})
		add("firewall", fmt.Sprintf("UDP port %d, out", l.port),
			kernel.Packet{Way: kernel.Outward, Out: n.Interface, Src: l.local, Dst: l.peer, Proto: unix.IPPROTO_UDP, Port: l.port})
	}
	return out
}

// local is the address that packets come in at, where that is one of this host's;
// behind a NAT it is not known.
func (w *World) local(public netip.Addr) netip.Addr {
	if _, here := w.owner(public); here {
		return public
	}
	return netip.Addr{}
}
