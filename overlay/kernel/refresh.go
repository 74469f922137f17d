package kernel

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// refresh brings the view up to date as far as want needs it: everything when
// in doubt, otherwise only what the view cannot know. It returns false if the
// kernel could not be read at all; the failure is in the result.
func (k *Kernel) refresh(want State, result *Result) bool {
	doubt := k.doubt.Swap(0)
	fresh := k.view
	var err error
	if k.view == nil || doubt&doubtNet != 0 {
		fresh, err = k.readNet(want)
	} else {
		err = k.freshen(want)
	}
	if err != nil {
		k.mistrust(doubt | doubtNet)
		result.fail("kernel", err)
		return false
	}
	if k.view == nil || doubt&doubtWall != 0 {
		fresh.wall, fresh.same.Admits = k.readWall(), nil
	} else {
		fresh.wall = k.view.wall
	}
	k.view = fresh
	if err := fresh.wallErr; err != nil {
		k.mistrust(doubtWall)
		if tableOf(want).text != "" || len(want.Doors) > 0 {
			result.fail("nft", err)
		}
	}
	if err := k.takeDevs(want); err != nil {
		k.mistrust(doubtNet)
		result.fail("kernel", err)
		return false
	}
	k.note(want, result)
	return true
}

// mistrust adds to what is in doubt.
func (k *Kernel) mistrust(bits uint32) { k.doubt.Or(bits) }

// freshen looks at the few things that an otherwise known view cannot tell:
// links that are wanted for the first time, pairs whose other end the engine
// may have taken, and who else holds the destinations of new routes.
func (k *Kernel) freshen(want State) error {
	v := k.view
	for _, l := range want.Links {
		if _, known := v.links[l.Name]; !known {
			if err := k.look(l); err != nil {
				return err
			}
		}
	}
	for _, p := range want.Veths {
		if p.Create {
			if err := k.look(p); err != nil {
				return err
			}
		}
	}
	if !sameSlice(v.same.Routes, want.Routes) {
		if err := k.takeRoutes(v, want); err != nil {
			return err
		}
	}
	return k.takeSysctls(v, want)
}

// look reads one link or pair into the view.
func (k *Kernel) look(want object) error {
	v, name := k.view, want.name()
	delete(v.blocked, label(want))
	delete(v.veths, name)
	l, ok, err := k.device(name, 0)
	if err != nil || !ok {
		return err
	}
	if l.vxlanDev != 0 && v.names[l.vxlanDev] == "" {
		if _, _, err := k.device("", l.vxlanDev); err != nil {
			return err
		}
	}
	v.takeLink(l, map[string]object{name: want})
	if link, ok := want.(Link); ok {
		k.takeTxSum(v, link)
	}
	if l.kind != "veth" || l.away || l.other == 0 {
		return nil
	}
	peer, ok, err := k.device("", l.other)
	if err != nil || !ok {
		return err
	}
	v.takePeer(peer)
	return nil
}

// device reads one device, by name or by index, and remembers its name.
func (k *Kernel) device(name string, index int) (linkInfo, bool, error) {
	found, err := k.route.query(linkQuery(name, index))
	if isGone(err) {
		return linkInfo{}, false, nil
	}
	if err != nil {
		return linkInfo{}, false, fmt.Errorf("read device %s: %w", name, err)
	}
	for _, a := range found {
		if l, ok := parseLink(a.body); ok && a.kind == unix.RTM_NEWLINK {
			if k.view != nil {
				k.view.names[l.index] = l.name
			}
			return l, true, nil
		}
	}
	return linkInfo{}, false, nil
}

// takeDevs remembers the devices of others that want relies on, so that Watch
// can tell when one comes or goes.
func (k *Kernel) takeDevs(want State) error {
	names := map[string]bool{}
	if under := k.under.Load(); under != nil {
		names[*under] = true
	}
	for _, l := range want.Links {
		names[l.VXLAN.Dev] = true
	}
	if !sameSlice(k.view.same.Routes, want.Routes) {
		for _, r := range want.Routes {
			names[r.Link] = true
		}
	}
	for _, l := range want.Links {
		delete(names, l.Name)
	}
	delete(names, "")
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if _, known := k.view.devs[name]; known {
			continue
		}
		l, _, err := k.device(name, 0)
		if err != nil {
			return err
		}
		k.view.devs[name] = dev{index: l.index, mtu: l.mtu, up: l.up}
	}
	return nil
}

// note tells, once, that dockerd's chain is not there.
func (k *Kernel) note(want State, result *Result) {
	const missing = "no DOCKER-USER chain: the rules that let our bridges pass dockerd's FORWARD chain are added when dockerd makes it"
	a := k.view.accepts["ip"]
	absent := len(want.Guards) > 0 && a.home == "" && a.legacy == "" && k.view.wallErr == nil
	if absent && !k.noted[missing] {
		result.Notes = append(result.Notes, missing)
	}
	k.noted[missing] = absent
}
