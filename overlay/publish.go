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
	Port  uint16     // of the container
	Host  netip.Addr // of this host; the unspecified one for all it has
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
	var before []Publish
	for _, p := range n.Published {
		if p.Endpoint == endpoint {
			before = append(before, p.Asked)
		}
	}
	if slices.Equal(before, asked) {
		return false, nil
	}
	n.withdraw(endpoint)
	o.holdPublished()
	for _, ask := range asked {
		host, err := o.pick(ask)
		if err != nil {
			n.withdraw(endpoint)
			o.holdPublished()
			return false, fmt.Errorf("publish port %d/%s of container %s: %w", ask.Port, ask.Proto, n.Ports[at].Addr, err)
		}
		n.Published = append(slices.Clip(n.Published), Published{endpoint, ask, host, netip.AddrPortFrom(n.Ports[at].Addr, ask.Port)})
	}
	return true, nil
}

// withdraw forgets the ports that lead to an endpoint.
func (n *network) withdraw(endpoint string) {
	n.Published = slices.DeleteFunc(slices.Clone(n.Published), func(p Published) bool { return p.Endpoint == endpoint })
}

// pick takes a port of this host; the caller holds mu.
func (o *Overlay) pick(ask Publish) (netip.AddrPort, error) {
	var why error
	for number := int(ask.First); number <= int(ask.Last); number++ {
		host := netip.AddrPortFrom(ask.Host, uint16(number))
		if why = o.publishedAt(ask.Proto, host); why != nil {
			continue
		}
		socket, port, err := o.opt.Ports.Hold(ask.Proto, host)
		if err == nil {
			host = netip.AddrPortFrom(ask.Host, port)
			o.holds[held{ask.Proto, host}] = socket
			return host, nil
		}
		why = fmt.Errorf("port %s: %w", held{ask.Proto, host}, err)
		if !errors.Is(err, kernel.ErrTaken) {
			return host, why
		}
		why = fmt.Errorf("%w; find it with: ss -lnp 'sport = :%d'; or publish another port", why, number)
	}
	if ask.Last > ask.First {
		why = fmt.Errorf("none of the ports %d-%d of %s is free; the last: %w", ask.First, ask.Last, ask.Host, why)
	}
	return netip.AddrPort{}, why
}

// publishedAt says which container of ours has the port; the caller holds mu.
func (o *Overlay) publishedAt(proto kernel.Protocol, host netip.AddrPort) error {
	for _, n := range o.sorted() {
		for _, p := range n.Published {
			meets := p.Host.Addr() == host.Addr() || p.Host.Addr().IsUnspecified() || host.Addr().IsUnspecified()
			if p.Asked.Proto == proto && p.Host.Port() == host.Port() && meets {
				return fmt.Errorf("port %s is published for container %s (endpoint %s) of %s already: publish another port, or stop that container",
					held{proto, p.Host}, p.To.Addr(), head(p.Endpoint), title(n.Name))
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
