package kernel

import (
	"net/netip"
	"testing"
)

// TestRuleOrder has what lets packets through before what drops the rest, and
// of the former the cheap rules first.
func TestRuleOrder(t *testing.T) {
	network, subnet := netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("10.5.7.0/24")
	got := tableOf(State{
		Forwards: []Forward{
			{In: "fl-blue", Out: "fl-blue"},
			{In: "flannel.1", Out: "fl-blue", Src: network, Dst: subnet},
			{In: "fl-blue", Out: "flannel.1", Src: subnet, Dst: network},
			{In: "fl-blue", Out: "fl-blue"},
		},
		Guards: []string{"fl-blue"},
		Closed: []netip.Prefix{network},
		Seals:  []Seal{{In: "docker", Out: "eth0", Port: 8472}},
	}).text
	want := chainText + `
forward in fl-blue out flannel.1 src 10.5.7.0/24 dst 10.5.0.0/16
forward in flannel.1 out fl-blue src 10.5.0.0/16 dst 10.5.7.0/24
forward in fl-blue out fl-blue
seal in docker* out eth0 udp 8472
closed 10.5.0.0/16
guard in fl-blue
guard out fl-blue
chain input type filter hook input priority -5 policy accept
uplink in eth0
seal in docker* udp 8472
`
	if got != want {
		t.Errorf("the table is\n%swant\n%s", got, want)
	}
}
