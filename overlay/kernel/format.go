package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// String prints the state as golden text: one object a line, each kind in the
// order in which it is applied and sorted within. Two states are equal if
// their texts are.
func (s State) String() string {
	var lines []string
	lines = append(lines, sorted(s.Sysctls)...)
	lines = append(lines, sorted(s.Links)...)
	lines = append(lines, sorted(s.Addrs)...)
	lines = append(lines, sorted(s.Veths)...)
	lines = append(lines, sorted(s.Neighs)...)
	lines = append(lines, sorted(s.FDB)...)
	lines = append(lines, sorted(s.Routes)...)
	lines = append(lines, sorted(s.Doors)...)
	lines = append(lines, sorted(s.Admits)...)
	if rules := tableOf(s).text; rules != "" {
		rules = strings.TrimPrefix(rules, chainText+"\n") // the chain that is always there
		lines = append(lines, strings.Split(strings.TrimSuffix(rules, "\n"), "\n")...)
	}
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// sorted gives the texts of the objects in order, equal ones once.
func sorted[T fmt.Stringer](objects []T) []string {
	texts := make([]string, 0, len(objects))
	for _, o := range objects {
		texts = append(texts, o.String())
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

// String is the setting as in "sysctl ipv4/ip_forward = 1".
func (s Sysctl) String() string { return fmt.Sprintf("sysctl %s = %s", s.Key, s.Value) }

// String is the device with all its parameters.
func (l Link) String() string {
	if l.TUN {
		return fmt.Sprintf("link %s tun mtu %d", l.Name, l.MTU)
	}
	text := fmt.Sprintf("link %s %s mac %s mtu %d", l.Name, l.VXLAN, l.MAC, l.MTU)
	if l.TxSum != Kept {
		text += " txsum " + l.TxSum.String()
	}
	return text
}

// String is "kept", "off" or "on".
func (o Offload) String() string { return [...]string{"kept", "off", "on"}[o] }

// String is the parameters as iproute2 names them, or "bridge".
func (v VXLAN) String() string {
	if v.VNI == 0 {
		return "bridge"
	}
	text := fmt.Sprintf("vxlan id %d port %d local %s dev %s", v.VNI, v.port(), addrText(v.Local), v.Dev)
	if v.Learning {
		text += " learning"
	}
	if v.GBP {
		text += " gbp"
	}
	return text
}

// String is the pair with all its parameters.
func (v Veth) String() string {
	text := fmt.Sprintf("veth %s peer %s master %s mac %s mtu %d", v.Name, v.Peer, v.Master, v.MAC, v.MTU)
	if v.Hairpin {
		text += " hairpin"
	}
	if v.Create {
		text += " create"
	}
	return text
}

// String is the address as in "addr fl-a 10.5.7.1/24".
func (a Addr) String() string { return fmt.Sprintf("addr %s %s", a.Link, a.Prefix) }

// String is the entry as in "neigh flannel.1 10.5.8.0 02:00:00:00:00:08".
func (n Neigh) String() string { return fmt.Sprintf("neigh %s %s %s", n.Link, n.IP, n.MAC) }

// String is the entry as in "fdb flannel.1 02:00:00:00:00:08 dst 10.0.0.8".
func (f FDB) String() string { return fmt.Sprintf("fdb %s %s dst %s", f.Link, f.MAC, f.Dst) }

// String is the route as in "route 10.5.8.0/24 via 10.5.8.0 dev flannel.1 onlink".
func (r Route) String() string {
	text := "route " + r.Dst.String()
	if r.Via.IsValid() {
		text += " via " + r.Via.String()
	}
	text += " dev " + r.Link
	if r.OnLink {
		text += " onlink"
	}
	if r.Src.IsValid() {
		text += " src " + r.Src.String()
	}
	return text
}

// String is the rule as in "forward in fl-a out flannel.1 src 10.5.0.0/16".
func (f Forward) String() string {
	text := "forward"
	if f.In != "" {
		text += " in " + f.In
	}
	if f.Out != "" {
		text += " out " + f.Out
	}
	if f.Src.IsValid() {
		text += " src " + f.Src.String()
	}
	if f.Dst.IsValid() {
		text += " dst " + f.Dst.String()
	}
	return text
}

// addrText prints an address that may be missing.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return "none"
	}
	return a.String()
}

// defaultVXLANPort is the kernel's own UDP port for vxlan, which a zero Port
// stands for.
const defaultVXLANPort = 8472

func (v VXLAN) port() int {
	if v.Port == 0 {
		return defaultVXLANPort
	}
	return v.Port
}

// same tells whether a device with these parameters is as good as one with w.
func (v VXLAN) same(w VXLAN) bool {
	v.Port, w.Port = v.port(), w.port()
	if v.VNI == 0 && w.VNI == 0 {
		return true
	}
	return v == w
}
