package main

import (
	"encoding/json"
	"fmt"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// mode is how the underlay's interfaces hand packets over.
type mode struct {
	name, title string
	wire        bool // at wire size
}

var modes = []mode{
	{"wire", "Packets at wire size on the underlay, as on a real NIC (segmentation offload off, GRO on)", true},
	{"offload", "Segmentation offload on everywhere: packets of up to 64 KB never leave memory", false},
}

// segmentation is what ethtool calls the offloads by which a packet larger than
// the MTU could cross a veth pair: TCP's and UDP's, plain and in a tunnel.
var segmentation = []string{"tso", "gso", "tx-udp-segmentation", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"}

// underlay switches the offloads of every host's interface and of its other
// end. At wire size a host merges what it receives, as with a NIC, and the wire
// between does not, as a switch.
func (s *scene) underlay(m mode) error {
	cut, merge := "on", "on"
	if m.wire {
		cut, merge = "off", "off"
	}
	set := func(h *netlab.Host, device, gro string) error {
		args := []string{"-K", device, "gro", gro}
		for _, feature := range segmentation {
			args = append(args, feature, cut)
		}
		_, err := h.Exec(s.ctx, "ethtool", args...)
		return err
	}
	// A switch asks no firewall. The file is there once br_netfilter is.
	const asks = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if _, err := s.lab.Wire().Exec(s.ctx, "sh", "-c", "! [ -e "+asks+" ] || echo 0 >"+asks); err != nil {
		return err
	}
	for _, h := range s.hosts {
		if err := set(h, "eth0", "on"); err != nil {
			return err
		}
		if err := set(s.lab.Wire(), h.Name(), merge); err != nil {
			return err
		}
	}
	return nil
}

// traffic is what crossed a wire.
type traffic struct{ Bytes, Packets int64 }

// since is the mean size in bytes of the packets that crossed since.
func (t traffic) since(before traffic) float64 {
	return float64(t.Bytes-before.Bytes) / float64(max(t.Packets-before.Packets, 1))
}

// sent is what a host has sent so far, counted at the wire's end.
func (s *scene) sent(h *netlab.Host) (traffic, error) {
	out, err := s.lab.Wire().Exec(s.ctx, "ip", "-j", "-s", "link", "show", "dev", h.Name())
	if err != nil {
		return traffic{}, err
	}
	var links []struct {
		Stats struct{ RX traffic } `json:"stats64"`
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		return traffic{}, fmt.Errorf("read ip's counters of %s: %w", h.Name(), err)
	}
	if len(links) != 1 {
		return traffic{}, fmt.Errorf("ip counts for %d interfaces named %s", len(links), h.Name())
	}
	return links[0].Stats.RX, nil
}
