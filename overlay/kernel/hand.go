package kernel

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// one carries out an op that is more than one message.
func (r *runner) one(o op) error {
	if o.verb == opRefuse {
		return errors.New(o.why)
	}
	switch on := o.on.(type) {
	case Sysctl:
		return r.k.writeSysctl(on)
	case Link:
		return r.link(o.verb, on)
	case Veth:
		return r.veth(o.verb, on)
	case Addr:
		return r.addr(o.verb, on)
	case table:
		if err := r.k.writeTable(on, o.verb == opDelete); err != nil {
			return err
		}
		after := on.text
		if o.verb == opDelete {
			after = ""
		}
		// The table is as wanted whatever comes of this.
		if err := r.k.forgetStreams(r.k.view.table, after); err != nil {
			r.k.log.Warn("UDP clients that go on sending may not follow a published port", "error", err)
		}
		return nil
	case Door:
		return r.k.writeDoor(on, o.verb == opDelete)
	case accept:
		return r.k.writeAccept(on.family, o.verb != opDelete)
	}
	return fmt.Errorf("no way to %s %s", o.verb, o.on)
}

// message is the one message that carries out a small op.
func (r *runner) message(o op) (message, error) {
	kind, flags := uint16(unix.RTM_NEWNEIGH), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if o.verb == opDelete {
		kind, flags = unix.RTM_DELNEIGH, 0
	}
	switch on := o.on.(type) {
	case Neigh:
		index, err := r.indexOf(on.Link)
		return neighMessage(kind, flags, on, index), err
	case FDB:
		index, err := r.indexOf(on.Link)
		return fdbMessage(kind, flags, on, index), err
	case stray:
		gone := on.route
		if gone.several {
			gone.index = 0
		}
		return routeMessage(unix.RTM_DELROUTE, 0, gone), nil
	}
	route := o.on.(Route)
	index, err := r.indexOf(route.Link)
	switch o.verb {
	case opDelete:
		return routeMessage(unix.RTM_DELROUTE, 0, route.info(index)), err
	case opAdd:
		// Never over a route that came after we looked.
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	return routeMessage(unix.RTM_NEWROUTE, flags, route.info(index)), err
}

// indexOf is the kernel's number of a device.
func (r *runner) indexOf(name string) (int, error) {
	if index := r.index[name]; index != 0 {
		return index, nil
	}
	l, ok, err := r.k.device(name, 0)
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, fmt.Errorf("device %q: %w", name, unix.ENODEV)
	}
	r.index[name] = l.index
	return l.index, nil
}

func (r *runner) link(verb string, l Link) error {
	switch verb {
	case opUp:
		return r.k.route.do(setLink(l.Name, true, nil))
	case opDelete:
		return r.k.route.do(deleteLink(l.Name))
	case opSet:
		have := r.k.view.links[l.Name]
		messages := []message{markLink(l.Name)}
		if have.MAC != l.MAC {
			messages = append(messages, setMAC(l.Name, l.MAC))
		}
		if have.MTU != l.MTU {
			messages = append(messages, setMTU(l.Name, l.MTU))
		}
		return errors.Join(append(r.k.route.batch(messages), r.k.setTxSum(l))...)
	}
	if verb == opRemake {
		if err := r.k.route.do(deleteLink(l.Name)); err != nil && !isGone(err) {
			return err
		}
	}
	if l.TUN {
		return r.k.createTUN(l)
	}
	dev := 0
	if l.VXLAN.Dev != "" {
		index, err := r.indexOf(l.VXLAN.Dev)
		if err != nil {
			return err
		}
		dev = index
	}
	if l.MAC.IsZero() {
		l.MAC = steadyMAC(l.Name)
	}
	// A bridge keeps an MTU that was set after it was made; one given at birth
	// follows its ports. A vxlan device would cut too large a one down unsaid.
	messages := []message{createLink(l, dev), markLink(l.Name)}
	if l.MTU != 0 {
		messages = append(messages, setMTU(l.Name, l.MTU))
	}
	return firstError(append(r.k.route.batch(messages), r.k.setTxSum(l)))
}

// steadyMAC is the address of a device that none is wanted for: without one of
// its own a bridge takes its ports', and changes it as they come and go.
func steadyMAC(name string) MAC {
	sum := sha256.Sum256([]byte(name))
	mac := MAC(sum[:6])
	mac[0] = mac[0]&^0x03 | 0x02 // local, unicast
	return mac
}

func (r *runner) veth(verb string, v Veth) error {
	if verb == opDelete {
		return r.k.route.do(deleteLink(v.Name))
	}
	master := 0
	if v.Master != "" {
		index, err := r.indexOf(v.Master)
		if err != nil {
			return err
		}
		master = index
	}
	if verb == opSet {
		return r.setVeth(v, master)
	}
	if verb == opRemake {
		if err := r.k.route.do(deleteLink(v.Name)); err != nil && !isGone(err) {
			return err
		}
	}
	messages := []message{createVeth(v, master), markLink(v.Name)}
	if v.Hairpin {
		messages = append(messages, setHairpin(v.Name, true))
	}
	if err := firstError(r.k.route.batch(messages)); err != nil || master == 0 {
		return err
	}
	return r.forget(master, v.Addrs)
}

// forget removes what the device remembers of who has the addresses.
func (r *runner) forget(device int, addrs [2]netip.Addr) error {
	var errs []error
	for _, a := range addrs {
		if !a.IsValid() {
			continue
		}
		if err := r.k.route.do(neighMessage(unix.RTM_DELNEIGH, 0, Neigh{IP: a}, device)); err != nil && !isGone(err) {
			errs = append(errs, fmt.Errorf("forget neighbour %s: %w", a, err))
		}
	}
	return errors.Join(errs...)
}

func (r *runner) setVeth(v Veth, master int) error {
	have := r.k.view.veths[v.Name]
	messages := []message{
		markLink(v.Name),
		setLink(v.Name, true, func(e *encoder) {
			if have.MTU != v.MTU {
				e.attr32(unix.IFLA_MTU, uint32(v.MTU))
			}
			if have.Master != v.Master {
				e.attr32(unix.IFLA_MASTER, uint32(master))
			}
		}),
	}
	if have.Hairpin != v.Hairpin || have.Master != v.Master && v.Hairpin {
		messages = append(messages, setHairpin(v.Name, v.Hairpin))
	}
	if have.peer.index != 0 {
		if have.peer.mtu != v.MTU {
			messages = append(messages, setMTU(have.Peer, v.MTU))
		}
		if have.MAC != v.MAC {
			messages = append(messages, setMAC(have.Peer, v.MAC))
		}
	}
	return errors.Join(r.k.route.batch(messages)...)
}

func (r *runner) addr(verb string, a Addr) error {
	index, err := r.indexOf(a.Link)
	if err != nil {
		return err
	}
	if verb == opDelete {
		return r.k.route.do(addrMessage(unix.RTM_DELADDR, 0, a.Prefix, index))
	}
	return r.k.route.do(addrMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a.Prefix, index))
}

// firstError is the cause of a chain of messages that need each other.
func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
