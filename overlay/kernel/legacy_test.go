package kernel

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// legacyBlob is a filter table in the making.
type legacyBlob struct {
	*legacyFamily
	info, entries []byte
}

func newLegacyBlob(f *legacyFamily) *legacyBlob {
	b := &legacyBlob{legacyFamily: f, info: make([]byte, infoSize)}
	for hook := range 5 {
		b.place(infoEntry, hook, -1)
		b.place(infoUnderflow, hook, -1)
	}
	return b
}

// place says where a hook's first rule or its policy is.
func (b *legacyBlob) place(what, hook, at int) {
	binary.NativeEndian.PutUint32(b.info[what+4*hook:], uint32(at))
}

// add puts an entry with a target behind the others, and returns its offset.
func (b *legacyBlob) add(in, out, target string, data []byte) int {
	e := make([]byte, b.head+extensionHead)
	put := func(nth int, name string) {
		at := b.devices + nth*unix.IFNAMSIZ
		copy(e[at:], name)
		for i := range name {
			e[at+2*unix.IFNAMSIZ+i] = 0xff
		}
	}
	put(0, in)
	put(1, out)
	copy(e[b.head+extensionName:], target)
	e = append(e, data...)
	binary.NativeEndian.PutUint16(e[b.target:], uint16(b.head))
	binary.NativeEndian.PutUint16(e[b.next:], uint16(len(e)))
	b.entries = append(b.entries, e...)
	return len(b.entries) - len(e)
}

func (b *legacyBlob) verdict(in, out string, v int32) int {
	return b.add(in, out, "", binary.NativeEndian.AppendUint32(nil, uint32(v)))
}

func (b *legacyBlob) acceptance() legacyAcceptance {
	return parseLegacy(b.legacyFamily, b.info, b.entries).acceptance()
}

func TestLegacyAcceptance(t *testing.T) {
	b := newLegacyBlob(&legacyIPv4)
	b.verdict("fl-", "", -1)
	b.verdict("fl-a", "", -2)
	inverted := b.verdict("fl-", "", -2)
	b.entries[inverted+b.inverse] = invIn
	drop, accept := b.verdict("", "", -1), b.verdict("", "", -2)
	b.place(infoUnderflow, unix.NF_INET_FORWARD, accept)
	if got := b.acceptance(); got != (legacyAcceptance{}) {
		t.Errorf("accept: %+v", got)
	}
	b.place(infoUnderflow, unix.NF_INET_FORWARD, drop)
	if got := b.acceptance(); got != (legacyAcceptance{drops: true}) {
		t.Errorf("drop: %+v", got)
	}
	b.add("", "", legacyHead, append([]byte(userChain), make([]byte, 21)...))
	b.verdict("fl-", "", -2)
	b.verdict("", "fl-", -2)
	if got := b.acceptance(); got != (legacyAcceptance{user: true, drops: true, in: true, out: true}) {
		t.Errorf("mended: %+v", got)
	}
	b.entries = b.entries[:len(b.entries)-1]
	if got := b.acceptance(); got.out {
		t.Errorf("torn: %+v", got)
	}
}

// FuzzLegacy walks packets through a table of any bytes.
func FuzzLegacy(f *testing.F) {
	for _, family := range []*legacyFamily{&legacyIPv4, &legacyIPv6} {
		b := newLegacyBlob(family)
		first := b.verdict("eth0", "", int32(3*(family.head+extensionHead+4)))
		policy := b.verdict("", "", -1)
		b.place(infoEntry, unix.NF_INET_LOCAL_IN, first)
		b.place(infoUnderflow, unix.NF_INET_LOCAL_IN, policy)
		b.add("", "", legacyHead, []byte("x\x00\x00\x00"))
		b.verdict("eth0", "", -2)
		f.Add(b.info, b.entries)
	}
	f.Fuzz(func(_ *testing.T, info, entries []byte) {
		info = append(info, make([]byte, infoSize)...)
		for _, p := range []Packet{
			{Way: Inward, In: "eth0", Src: netip.MustParseAddr("10.0.0.2"), Proto: unix.IPPROTO_UDP, Port: 8472},
			{Way: Inward, In: "eth0", Src: netip.MustParseAddr("fd00::2"), Proto: unix.IPPROTO_UDP, Port: 8472, IPv6: true},
		} {
			family := &legacyIPv4
			if p.IPv6 {
				family = &legacyIPv6
			}
			t := parseLegacy(family, info, entries)
			t.acceptance()
			t.walls().obstacles(p)
		}
	})
}
