package kernel

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzStroll walks a packet through a rule of any bytes.
func FuzzStroll(f *testing.F) {
	e := encoder{}
	e.text(unix.NFTA_EXPR_NAME, "meta")
	e.nest(unix.NFTA_EXPR_DATA, func() {
		e.attr(unix.NFTA_META_DREG, 0, 0, 0, 1)
		e.attr(unix.NFTA_META_KEY, 0, 0, 0, unix.NFT_META_L4PROTO)
	})
	f.Add(e.b, []byte{})
	e = encoder{}
	e.text(unix.NFTA_EXPR_NAME, "match")
	e.nest(unix.NFTA_EXPR_DATA, func() {
		e.text(unix.NFTA_MATCH_NAME, "udp")
		e.attr(unix.NFTA_MATCH_INFO, 0, 0, 255, 255, 0, 0, 1, 0, 0, 0)
	})
	f.Add(e.b, e.b)
	p := Packet{Way: Inward, In: "eth0", Src: netip.MustParseAddr("10.0.0.2"), Proto: unix.IPPROTO_UDP, Port: 8472}
	f.Fuzz(func(_ *testing.T, first, second []byte) {
		id := chainID{unix.NFPROTO_INET, "t", "c"}
		w := walls{
			base: []chain{{table: "t", name: "c", kind: "filter", hook: unix.NF_INET_LOCAL_IN, policy: nfDrop}}, ids: []chainID{id},
			rules: map[chainID][]wallRule{id: {rawRule{1, [][]byte{first, second}}, rawRule{2, [][]byte{second, first}}}},
			links: map[string]int{"eth0": 2},
		}
		w.obstacles(p)
		parseRaw(first)
	})
}
