package kernel

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// legacyWalls are the chains of a legacy filter table; nil without one.
func (k *Kernel) legacyWalls(six bool) (*walls, error) {
	f := &legacyIPv4
	if six {
		f = &legacyIPv6
	}
	var t *legacyTable
	err := k.ns.run(func() (err error) {
		t, err = readLegacy(f)
		return err
	})
	if err != nil || t == nil {
		return nil, err
	}
	return t.walls(), nil
}

// legacyChains are the base chains of a filter table.
var legacyChains = map[uint32]string{
	unix.NF_INET_LOCAL_IN: "INPUT", unix.NF_INET_FORWARD: forwardChain, unix.NF_INET_LOCAL_OUT: "OUTPUT",
}

// walls cuts the table into its chains. A base chain ends with its policy.
func (t *legacyTable) walls() *walls {
	w := &walls{rules: map[chainID][]wallRule{}}
	id := func(name string) chainID { return chainID{t.family, "filter", name} }
	heads := map[int]string{} // chains by the offset of their first rule
	for hook, name := range legacyChains {
		heads[t.entries[hook]] = name
	}
	for _, r := range t.rules {
		if r.target == legacyHead {
			heads[r.at+len(r.raw)] = r.chain
		}
	}
	name := ""
	for _, r := range t.rules {
		if head, begins := heads[r.at]; begins {
			name = head
		}
		for hook, chainName := range legacyChains {
			if r.at == t.policies[hook] {
				policy := uint32(nfDrop)
				if r.verdict == -nfAccept-1 {
					policy = nfAccept
				}
				w.base = append(w.base, chain{table: "filter", name: chainName, kind: "filter", hook: hook, policy: policy})
				w.ids = append(w.ids, id(chainName))
				name = ""
			}
		}
		if name != "" && r.target != legacyHead {
			number := len(w.rules[id(name)]) + 1
			w.rules[id(name)] = append(w.rules[id(name)], numbered{r, number, heads[int(r.verdict)]})
		}
	}
	return w
}

// numbered is a rule of a legacy table in its chain.
type numbered struct {
	legacyRule
	number int    // from 1
	jump   string // chain that its verdict leads to
}

func (r numbered) name(chain string) string { return fmt.Sprintf("%s rule %d", chain, r.number) }

// meet matches a packet with what a rule says of addresses, interfaces and
// protocol, and with its matches.
func (r numbered) meet(m *matching) fit {
	m.fits = yes
	f, p := r.of, m.packet
	inverse := r.field(f.inverse, 1)[0]
	address := func(at int, have netip.Addr, flag byte) bool {
		return m.masked(have.AsSlice(), r.field(at, f.address), r.field(at+2*f.address, f.address), inverse&flag != 0)
	}
	device := func(have string, none bool, name, mask []byte, flag byte) bool {
		device := padded(have)
		if none { // which the kernel compares as an empty name
			device = make([]byte, unix.IFNAMSIZ)
		}
		return m.masked(device, name, mask, inverse&flag != 0)
	}
	in, inMask := r.in()
	out, outMask := r.out()
	switch {
	case !address(0, p.Src, invSrc), !address(f.address, p.Dst, invDst),
		!device(p.In, p.Way == Outward, in, inMask, invIn), !device(p.Out, p.Way == Inward, out, outMask, invOut):
		return no
	}
	flags, protocol := r.field(f.flags, 1)[0], num16(r.field(f.protocol, 2))
	if !f.anyProtocol(flags, protocol) && (protocol == uint16(p.Proto)) == (inverse&invProtocol != 0) {
		return no
	}
	if flags&f.fragment != 0 && inverse&invFragment == 0 { // a flow begins with none
		return no
	}
	for _, x := range r.matches {
		if !m.xtMatch(x.name, x.info) {
			return no
		}
	}
	r.decide(m, flags)
	return m.fits
}

// decide is the verdict of a rule that matches.
func (r numbered) decide(m *matching, flags byte) {
	switch {
	case r.target != "":
		m.xtTarget(r.target)
	case r.jump != "":
		m.decides, m.code, m.target = true, unix.NFT_JUMP, r.jump
		if flags&r.of.to != 0 {
			m.code = unix.NFT_GOTO
		}
	case r.verdict == legacyReturn:
		m.decides, m.code = true, unix.NFT_RETURN
	case r.verdict < 0:
		m.decides, m.code = true, -r.verdict-1
	}
}

// masked is false where what is known of a packet is not what a rule wants under
// its mask; nothing is known of one that is empty.
func (m *matching) masked(have, want, mask []byte, inverse bool) bool {
	same, asked := true, false
	for i := range mask {
		asked = asked || mask[i] != 0
		same = same && len(have) == len(mask) && have[i]&mask[i] == want[i]&mask[i]
	}
	if !asked {
		return !inverse
	}
	if len(have) == 0 {
		m.fits = maybe
		return true
	}
	return same != inverse
}
