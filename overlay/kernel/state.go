package kernel

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// State is everything this project wants to be true in one network namespace.
// It is a value: two states with equal contents mean the same thing, whatever
// the order of their slices, and String prints one as golden text.
type State struct {
	Sysctls  []Sysctl
	Links    []Link
	Veths    []Veth
	Addrs    []Addr
	Neighs   []Neigh
	FDB      []FDB
	Routes   []Route
	Forwards []Forward
	// Guards names bridges that forward only what Forwards accepts: every
	// other packet routed into or out of them is dropped.
	Guards []string
	// Egresses are bridges that lead out of the host, and Inside what is never
	// out: it is neither reached that way nor masqueraded.
	Egresses  []Egress
	Inside    []netip.Prefix
	Publishes []Publish
	// Closed names networks between whose own addresses nothing is routed but
	// what Forwards accepts, whatever the devices.
	Closed []netip.Prefix
	Seals  []Seal
	Doors  []Door
	Admits []Admit
}

// MAC is a 48-bit Ethernet address, comparable.
type MAC [6]byte

// ParseMAC reads the colon form of a 48-bit Ethernet address.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("%q is not a MAC address such as 02:42:0a:05:07:02", s)
	}
	return MAC(hw), nil
}

// String is the lower-case colon form.
func (m MAC) String() string {
	var b strings.Builder
	for i, octet := range m {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(hex.EncodeToString([]byte{octet}))
	}
	return b.String()
}

// IsZero tells whether no address was given.
func (m MAC) IsZero() bool { return m == MAC{} }

// MarshalText writes the colon form; the zero MAC becomes the empty text.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads the colon form; the empty text is the zero MAC.
func (m *MAC) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*m = MAC{}
		return nil
	}
	got, err := ParseMAC(string(text))
	if err != nil {
		return err
	}
	*m = got
	return nil
}

// Sysctl is one setting under /proc/sys/net, for example
// {"ipv4/ip_forward", "1"}.
type Sysctl struct{ Key, Value string }

// Link is a bridge, a vxlan device or a TUN device. They are named with
// BridgePrefix, VXLANPrefix and TUNPrefix: the names are this project's mark.
type Link struct {
	Name  string
	MAC   MAC     // zero for a TUN device, which has none
	MTU   int     // bytes
	VXLAN VXLAN   // zero for the other kinds
	TUN   bool    // made to stay, with or without a process that reads it
	TxSum Offload // checksums of what is sent: ethtool's tx-checksumming
}

// Offload says whether a device may leave work to the one below it.
type Offload byte

// Kept leaves an offload as the kernel, or somebody else, has set it.
const (
	Kept Offload = iota
	Off
	On
)

// VXLAN holds the parameters of a vxlan device that the kernel cannot change
// in place: another value means the device is made anew. VNI 0 means the link
// is none.
type VXLAN struct {
	VNI      int
	Port     int        // UDP destination port
	Local    netip.Addr // outer source address
	Dev      string     // underlay interface
	Learning bool
	GBP      bool
}

// Veth is one container's cable: Name stays on this host with Master as its
// bridge, Peer is moved into the container by the engine. A Veth is made only
// while Create is set; without it a missing pair stays missing, because only
// the engine can plug the other end in. With Create set and Name present but
// Peer not in this namespace, the pair is made anew.
type Veth struct {
	Name, Peer, Master string
	MAC                MAC // of Peer
	MTU                int // bytes, both ends
	// Segments is the largest TCP super-packet that the container sends, in
	// packets of the wire; 0 for the kernel's. It holds for pairs made from then on.
	Segments int
	// Hairpin has the bridge send back what came from here: br_netfilter bridges
	// what is led from a container to that very container.
	Hairpin bool
	// Addrs are the container's addresses. What the bridge remembers of who has
	// them is forgotten when the pair is made: a restarted container may have
	// another MAC, and packets to the old one would be lost for ten seconds.
	Addrs  [2]netip.Addr
	Create bool
}

// Addr is an address on one of our links.
type Addr struct {
	Link   string
	Prefix netip.Prefix
}

// Neigh is a permanent neighbour entry on one of our vxlan devices.
type Neigh struct {
	Link string
	IP   netip.Addr
	MAC  MAC
}

// FDB is a permanent forwarding entry on one of our vxlan devices: frames for
// MAC are sent to Dst.
type FDB struct {
	Link string
	MAC  MAC
	Dst  netip.Addr
}

// Route is a unicast route in the main table carrying our route protocol
// number. OnLink says that Via needs no covering route. Src, where given, is
// the source address of what the host itself sends.
type Route struct {
	Dst    netip.Prefix
	Via    netip.Addr
	Link   string
	OnLink bool
	Src    netip.Addr
}

// Forward accepts routed packets from In to Out whose addresses lie in Src and
// Dst. In equal to Out also covers bridged frames shown to the firewall by
// br_netfilter.
type Forward struct {
	In, Out  string
	Src, Dst netip.Prefix
}

// Seal drops UDP packets that come from devices whose names begin with In, for a
// port on which tunnels end: those routed to Out, but for what Forwards accepts,
// and those for this host.
type Seal struct {
	In, Out string
	Port    int
}

// The marks that tell what is ours; nothing without one is ever touched.
const (
	// Alias is the interface alias of every bridge, vxlan, TUN device and host
	// side of a veth pair: a device that carries one of the name prefixes
	// below without it is somebody else's, for example a stock flanneld's.
	Alias = "docker-flannel"
	// BridgePrefix starts every bridge's name.
	BridgePrefix = "fl-"
	// VethPrefix starts the host side of every veth pair.
	VethPrefix = "flv"
	// VethPeerPrefix starts the container side while it is on the host.
	VethPeerPrefix = "flp"
	// VXLANPrefix starts every vxlan device's name, as in flannel.
	VXLANPrefix = "flannel."
	// VXLAN6Prefix starts the name of the one that carries IPv6, over IPv6.
	VXLAN6Prefix = "flannel-v6."
	// TUNPrefix starts every TUN device's name; flannel's is flannel0.
	TUNPrefix = "flannel"
	// RouteProtocol is the protocol number of our routes; rt_protos of
	// iproute2 leaves it unassigned.
	RouteProtocol = 117
	// Table is our nftables table, family inet.
	Table = "docker-flannel"
	// DoorTable is the one of the tunnels' ports, family inet.
	DoorTable = "docker-flannel-doors"
)
