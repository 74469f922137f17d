package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// doorChain is a door's chain as it stands.
type doorChain struct {
	door  Door
	chain chain
	rules []chainRule
}

// readDoorChains lists them; with an error, those read before it.
func (k *Kernel) readDoorChains() (found []doorChain, err error) {
	chains, err := k.readChains(unix.NFPROTO_INET, DoorTable)
	if err != nil {
		return nil, err
	}
	for _, c := range chains {
		d, ok := doorOf(c.name)
		if !ok {
			continue
		}
		rules, err := k.readRules(unix.NFPROTO_INET, DoorTable, c.name)
		if err != nil {
			return found, err
		}
		found = append(found, doorChain{d, c, rules})
	}
	return found, nil
}

// readDoors gives every door as it stands, and whom it admits. One of which there
// are only sets has no text.
func (k *Kernel) readDoors() (map[Door]string, map[Admit]Admit, error) {
	doors, admits := map[Door]string{}, map[Admit]Admit{}
	chains, err := k.readDoorChains()
	for _, c := range chains {
		lines := []string{c.chain.String()}
		for _, r := range c.rules {
			lines = append(lines, r.comment)
		}
		doors[c.door] = strings.Join(lines, "\n")
	}
	if err != nil {
		return doors, admits, err
	}
	names, err := k.readSets()
	if err != nil {
		return doors, admits, err
	}
	for _, name := range names {
		i := strings.LastIndexByte(name, '_')
		d, ok := doorOf(name[:max(i, 0)])
		if !ok {
			continue
		}
		doors[d] += "" // known, if only by its sets
		if err := k.readAdmits(d, name, admits); err != nil {
			return doors, admits, err
		}
	}
	return doors, admits, nil
}

// readSets names the sets of the doors' table.
func (k *Kernel) readSets() (names []string, err error) {
	found, err := k.filter.dump(nftQuery(unix.NFT_MSG_GETSET, unix.NFPROTO_INET, func(e *encoder) {
		e.text(unix.NFTA_SET_TABLE, DoorTable)
	}))
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables sets: %w", err)
	}
	for _, a := range found {
		names = append(names, unix.ByteSliceToString(inner(nftBody(a.body), unix.NFTA_SET_NAME)))
	}
	return names, nil
}

// readAdmits adds what is in one set.
func (k *Kernel) readAdmits(d Door, set string, admits map[Admit]Admit) error {
	found, err := k.filter.dump(nftQuery(unix.NFT_MSG_GETSETELEM, unix.NFPROTO_INET, func(e *encoder) {
		e.text(unix.NFTA_SET_ELEM_LIST_TABLE, DoorTable)
		e.text(unix.NFTA_SET_ELEM_LIST_SET, set)
	}))
	if isGone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list nftables set %s: %w", set, err)
	}
	for _, a := range found {
		for _, from := range parseElements(a.body) {
			entry := Admit{d, from}
			admits[entry] = entry
		}
	}
	return nil
}

// parseElements reads the addresses in a message about a set's elements.
func parseElements(b []byte) (addrs []netip.Addr) {
	for _, element := range attributes(inner(nftBody(b), unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
		key := inner(inner(element, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)
		if addr, ok := netip.AddrFromSlice(key); ok {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// Foreign counts, by UDP port, the packets that came to a tunnel's port from
// addresses that are no peer's. It counts from zero again when a door is made
// anew.
func (k *Kernel) Foreign() (map[int]uint64, error) {
	chains, err := k.readDoorChains()
	if err != nil {
		return nil, err
	}
	counts := map[int]uint64{}
	for _, c := range chains {
		counts[c.door.Port] += 0
		for _, r := range c.rules {
			counts[c.door.Port] += r.packets
		}
	}
	return counts, nil
}

// parsePackets is what a rule's counter says; 0 for another expression.
func parsePackets(b []byte) uint64 {
	if unix.ByteSliceToString(inner(b, unix.NFTA_EXPR_NAME)) != "counter" {
		return 0
	}
	count := inner(inner(b, unix.NFTA_EXPR_DATA), unix.NFTA_COUNTER_PACKETS)
	if len(count) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(count)
}
