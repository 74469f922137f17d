package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Publish asks for a port of this host that leads to a container's.
type Publish struct {
	Proto kernel.Protocol
	Port  uint16 // of the container
	// Host is an address of this host; an unspecified one for all it has in that
	// family, the zero one for all it has in the families of the container.
	Host netip.Addr
	// First and Last are the ports of this host of which the lowest free one
	// is taken; 0 for any free one.
	First, Last uint16
}

// Published is a port of this host that leads to a container's.
type Published struct {
	Endpoint string // Docker's endpoint id
	Asked    Publish
	Host, To netip.AddrPort
}

// Holder takes ports of this host, so that nobody else does.
type Holder interface {
	// Hold takes a port until what it returns is closed; port 0 takes any free
	// one. The error wraps kernel.ErrTaken where another program has it.
	Hold(p kernel.Protocol, host netip.AddrPort) (io.Closer, uint16, error)
}

// held names a port that is held.
type held struct {
	proto kernel.Protocol
	host  netip.AddrPort
}

func (h held) String() string { return fmt.Sprintf("%s/%s", h.host, h.proto) }

// Publish leads ports of this host to a container, instead of those that did
// before; none at all withdraws them. Only a network that is its containers' way
// out has ports: for any other one the engine's docker_gwbridge does it. It is
// idempotent.
func (o *Overlay) Publish(ctx context.Context, dockerNet, endpoint string, asked []Publish) error {
	changed, err := o.publish(dockerNet, endpoint, asked)
	if err != nil || !changed {
		return err
	}
	if err = o.save(); err == nil && len(asked) > 0 {
		err = o.sync(ctx)
	}
	o.poke()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("publish ports of endpoint %s: %w", head(endpoint), err)
	if _, undo := o.publish(dockerNet, endpoint, nil); undo != nil || len(asked) == 0 {
		return errors.Join(err, undo)
	}
	return errors.Join(err, o.save())
}

// publish enters ports; changed is false where all is as asked already.
func (o *Overlay) publish(dockerNet, endpoint string, asked []Publish) (changed bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.byDocker(dockerNet)
	switch {
	case n == nil && len(asked) == 0:
		return false, nil
	case n == nil:
		return false, unknownNetwork(dockerNet)
	case !n.Docker.leadsOut():
		return false, nil
	}
	at := slices.IndexFunc(n.Ports, func(p Port) bool { return p.Endpoint == endpoint })
	if at < 0 && len(asked) > 0 {
		return false, fmt.Errorf("endpoint %s is not known on this host: restart the container", head(endpoint))
	}
	if slices.Equal(n.asked(endpoint), asked) {
		return false, nil
	}
	n.withdraw(endpoint)
	o.holdPublished()
	for _, ask := range asked {
		ways, err := n.Ports[at].ways(ask)
		if err == nil {
			ways, err = o.pick(ask, ways)
		}
		if err != nil {
			n.withdraw(endpoint)
			o.holdPublished()
			return false, fmt.Errorf("publish port %d/%s of container %s: %w", ask.Port, ask.Proto, n.Ports[at].Addr, err)
		}
		n.Published = append(slices.Clip(n.Published), ways...)
	}
	return true, nil
}

// asked is what was asked for an endpoint, in that order. What was asked for
// both families is found at IPv4's part, which every container has.
func (n *network) asked(endpoint string) []Publish {
	var all []Publish
	for _, p := range n.Published {
		if p.Endpoint == endpoint && (p.Asked.Host.IsValid() || p.Host.Addr().Is4()) {
			all = append(all, p.Asked)
		}
	}
	return all
}

// ways are the addresses of this host that are asked for, each with the
// container's of the same family; their ports are to be picked.
func (p Port) ways(ask Publish) ([]Published, error) {
	four := Published{p.Endpoint, ask, netip.AddrPortFrom(netip.IPv4Unspecified(), 0), netip.AddrPortFrom(p.Addr, ask.Port)}
	six := Published{p.Endpoint, ask, netip.AddrPortFrom(netip.IPv6Unspecified(), 0), netip.AddrPortFrom(p.IPv6, ask.Port)}
	switch host := ask.Host; {
	case !host.IsValid() && p.IPv6.IsValid():
		return []Published{four, six}, nil
	case !host.IsValid():
		return []Published{four}, nil
	case host.Is4():
		four.Host = netip.AddrPortFrom(host, 0)
		return []Published{four}, nil
	case !p.IPv6.IsValid():
		return nil, fmt.Errorf("host address %s: the container has no IPv6 address; give one of IPv4, leave it out, or create the network with --ipv6", host)
	}
	six.Host = netip.AddrPortFrom(ask.Host, 0)
	return []Published{six}, nil
}

// withdraw forgets the ports that lead to an endpoint.
func (n *network) withdraw(endpoint string) {
	n.Published = slices.DeleteFunc(slices.Clone(n.Published), func(p Published) bool { return p.Endpoint == endpoint })
}

// freePorts is how many free ports are tried until one is free in both families.
const freePorts = 16

// pick takes the lowest port that is free at all the ways' host addresses; the
// caller holds mu.
func (o *Overlay) pick(ask Publish, ways []Published) ([]Published, error) {
	first, last, tries := int(ask.First), int(ask.Last), 1
	if first == 0 && len(ways) > 1 {
		tries = freePorts
	}
	var why error
	for number := first; number <= last; number++ {
		for range tries {
			picked, err := o.holdAll(ask.Proto, uint16(number), ways)
			if err == nil {
				return picked, nil
			}
			why = err
			if !errors.Is(err, kernel.ErrTaken) && !errors.Is(err, errPublished) {
				return nil, err
			}
		}
	}
	if last > first {
		why = fmt.Errorf("none of the ports %d-%d of %s is free; the last: %w", first, last, ways[0].Host.Addr(), why)
	}
	return nil, why
}

// holdAll holds one port at all the ways' host addresses, or at none. With number
// 0 it is any that is free at the first.
func (o *Overlay) holdAll(proto kernel.Protocol, number uint16, ways []Published) (_ []Published, err error) {
	var taken []held
	defer func() {
		if err == nil {
			return
		}
		for _, port := range taken {
			err = errors.Join(err, o.holds[port].Close())
			delete(o.holds, port)
		}
	}()
	picked := slices.Clone(ways)
	for i := range picked {
		host := netip.AddrPortFrom(picked[i].Host.Addr(), number)
		if err := o.publishedAt(proto, host); err != nil {
			return nil, err
		}
		socket, got, err := o.opt.Ports.Hold(proto, host)
		if err != nil {
			return nil, notHeld(held{proto, host}, err)
		}
		number = got
		picked[i].Host = netip.AddrPortFrom(host.Addr(), got)
		port := held{proto, picked[i].Host}
		o.holds[port] = socket
		taken = append(taken, port)
	}
	return picked, nil
}

// notHeld says why a port was not held, and what to do.
func notHeld(port held, err error) error {
	err = fmt.Errorf("port %s: %w", port, err)
	if errors.Is(err, kernel.ErrTaken) {
		err = fmt.Errorf("%w; find it with: ss -lnp 'sport = :%d'; or publish another port", err, port.host.Port())
	}
	return err
}

// errPublished says that a container of ours has the port.
var errPublished = errors.New("publish another port, or stop that container")

// publishedAt says which container of ours has the port; the caller holds mu.
func (o *Overlay) publishedAt(proto kernel.Protocol, host netip.AddrPort) error {
	for _, n := range o.sorted() {
		for _, p := range n.Published {
			meets := p.Host.Addr() == host.Addr() ||
				p.Host.Addr().Is4() == host.Addr().Is4() && (p.Host.Addr().IsUnspecified() || host.Addr().IsUnspecified())
			if p.Asked.Proto == proto && p.Host.Port() == host.Port() && meets {
				return fmt.Errorf("port %s is published for container %s (endpoint %s) of %s already: %w",
					held{proto, p.Host}, p.To.Addr(), head(p.Endpoint), title(n.Name), errPublished)
			}
		}
	}
	return nil
}

// holdPublished holds every published port and no other; the caller holds mu. A
// port that another program took while the plugin was away stays published: what
// comes for it goes to the container.
func (o *Overlay) holdPublished() {
	wanted := map[held]bool{}
	for _, n := range o.nets {
		for _, p := range n.Published {
			wanted[held{p.Asked.Proto, p.Host}] = true
		}
	}
	for port, socket := range o.holds {
		if wanted[port] {
			continue
		}
		delete(o.holds, port)
		if err := socket.Close(); err != nil {
			o.opt.Log.Warn("published port not let go", "port", port, "error", err)
		}
	}
	for port := range o.contested {
		if !wanted[port] {
			delete(o.contested, port)
		}
	}
	for port := range wanted {
		if o.holds[port] != nil {
			continue
		}
		socket, _, err := o.opt.Ports.Hold(port.proto, port.host)
		if err == nil {
			o.holds[port] = socket
			delete(o.contested, port)
			continue
		}
		if !o.contested[port] {
			o.contested[port] = true
			o.opt.Log.Warn("published port not held: containers get what comes for it, a program of this host does not", "port", port, "error", err)
		}
	}
}
