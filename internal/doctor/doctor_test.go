package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

// about are a check's verdicts.
func about(all []Verdict, check string) (found []Verdict) {
	for _, v := range all {
		if v.Check == check {
			found = append(found, v)
		}
	}
	return found
}

func TestSound(t *testing.T) {
	all := Examine(sound())
	for _, v := range all {
		if v.State != OK || v.Found == "" || v.Mend != "" {
			t.Errorf("%+v", v)
		}
	}
	for _, c := range Checks() {
		if len(about(all, c.Name)) == 0 {
			t.Errorf("check %s says nothing", c.Name)
		}
	}
	if code := ExitCode(all); code != ExitFine {
		t.Errorf("exit code %d", code)
	}
}

func obstacle(family, table, chain, rule string, certain bool) kernel.Obstacle {
	return kernel.Obstacle{Family: family, Table: table, Chain: chain, Rule: rule, Certain: certain}
}

// TestFaults breaks one thing in a sound world.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name, check string
		fault       func(w *World)
		state       State
		found, mend string // parts
		on          string
	}{
		{"plugin disabled", "plugin", func(w *World) { w.Plugin.Error, w.Plugin.Enabled = "no answer", false }, Fail, "disabled", enable, ""},
		{"plugin not installed", "plugin", func(w *World) { w.Plugin = Plugin{Error: "no answer"} }, Fail, "not installed", "docker plugin install", ""},
		{"plugin hangs", "plugin", func(w *World) { w.Plugin.Error = "no answer" }, Fail, "no answer", restart, ""},
		{"engine down", "plugin", func(w *World) { w.Plugin.Error, w.Plugin.Engine = "no answer", "refused" }, Fail, "refused", "systemctl start docker", ""},
		{"problem", "problems", func(w *World) { w.Problems = []report.Finding{{Text: "stuck", Next: "do"}} }, Fail, "stuck", "do", ""},
		{"no vxlan", "kernel", func(w *World) { w.Kernel.Features["vxlan"] = "operation not supported" }, Fail, "vxlan (operation", "modprobe -a vxlan", ""},
		{"no tun, and no need", "kernel", func(w *World) { w.Kernel.Features["tun"] = "no such device" }, Warn, "tun (no such", "modprobe -a tun", ""},
		{"no tun, and need", "kernel", func(w *World) { w.Kernel.Features["tun"] = "x"; w.Host.Networks[0].Backend = "udp" }, Fail, "tun (x", "modprobe", ""},
		{"not root", "kernel", func(w *World) { w.Kernel.FeaturesErr = "not permitted" }, Unknown, "not permitted", "", ""},
		{"no forwarding", "ip_forward", func(w *World) { w.Kernel.Sysctls["ipv4/ip_forward"] = "0" }, Fail, "=0", "sysctl -w net.ipv4.ip_forward=1", ""},
		{"strict, harmless", "rp_filter", func(w *World) { w.Kernel.Sysctls["ipv4/conf/all/rp_filter"] = "1" }, OK, "strict on all", "", ""},
		{"strict, and silent", "rp_filter", func(w *World) {
			w.Kernel.Sysctls["ipv4/conf/eth0/rp_filter"] = "1"
			w.Peers[0].Overlay.Came = false
		}, Warn, "1 of 1 peers", "rp_filter=2", ""},
		{"interface gone", "interface", func(w *World) { w.Host.Networks[0].Interface = "eth7" }, Fail, `"eth7" does not exist`, "IFACE=", ""},
		{"interface down", "interface", func(w *World) { w.Kernel.Interfaces[1].Up = false }, Fail, "down", "ip link set eth0 up", ""},
		{"interface narrow", "interface", func(w *World) { w.Kernel.Interfaces[1].MTU = 1499 }, Fail, "MTU 1499", "ip link set eth0 mtu 1500", ""},
		{"PublicIP of docker0", "publicip", func(w *World) { w.Host.Networks[0].PublicIP = w.Kernel.Interfaces[0].Addrs[0].Addr() }, Fail, "on docker0", "PUBLIC_IP=", ""},
		{"NAT", "publicip", func(w *World) { w.Kernel.Interfaces[1].Addrs = nil }, OK, "NAT", "", ""},
		{"NAT, and silence", "publicip", func(w *World) { w.Kernel.Interfaces[1].Addrs, w.Peers[0].Overlay.Came = nil, false }, Fail, "none of 1", "set docker-flannel PUBLIC_IP= &&", ""},
		{"NAT, and nobody", "publicip", func(w *World) { w.Kernel.Interfaces[1].Addrs, w.Peers = nil, nil }, Warn, "no other host", "PUBLIC_IP=", ""},
		{"DOCKER-USER", "docker-user", func(w *World) { w.Audit = []report.Difference{{Object: "docker-user", Change: "set docker-user ip"}} }, Fail, "set docker-user ip", restart, ""},
		{"legacy", "legacy", func(w *World) { w.Kernel.Legacy, w.Kernel.LegacyWhy = "iptables-legacy -I", "drops" }, Fail, "drops", "iptables-legacy -I", ""},
		{"FORWARD of nft", "forward", func(w *World) {
			w.Kernel.Walls[0].Obstacles = []kernel.Obstacle{obstacle("inet", "fw", "c", "policy drop", true)}
		}, Fail, "table inet fw (policy drop)", `nft insert rule inet fw c iifname "fl-*" accept && nft`, ""},
		{"FORWARD of iptables", "forward", func(w *World) {
			w.Kernel.Walls[0].Obstacles = []kernel.Obstacle{obstacle("ip", "filter", "FORWARD", "FORWARD handle 3", true)}
		}, Fail, "handle 3", "iptables-nft -I FORWARD -i fl-+ -j ACCEPT && iptables-nft -I FORWARD -o fl-+ -j ACCEPT", ""},
		{"FORWARD, perhaps, and nobody suffers", "forward", func(w *World) {
			w.Kernel.Walls[0].Obstacles = []kernel.Obstacle{obstacle("ip", "f", "c", "r", false)}
		}, OK, "passes", "", ""},
		{"bridge", "br_netfilter", func(w *World) {
			w.Kernel.Walls[1].Obstacles = []kernel.Obstacle{obstacle("ip", "f", "c", "r", true)}
		}, Fail, "dropped", "nft insert rule ip f c", ""},
		{"no br_netfilter", "br_netfilter", func(w *World) { delete(w.Kernel.Sysctls, "bridge/bridge-nf-call-iptables") }, OK, "off", "", ""},
		{"firewall", "firewall", func(w *World) {
			w.Kernel.Walls[2].Obstacles = []kernel.Obstacle{obstacle("ip", "filter", "INPUT", "r", true)}
		}, Fail, "dropped", "iptables-nft -I INPUT -p udp --dport 8472 -j ACCEPT", ""},
		{"legacy firewall", "firewall", func(w *World) {
			w.Kernel.Walls[2].Obstacles = []kernel.Obstacle{{Family: "ip", Table: "filter", Chain: "INPUT", Rule: "policy drop", Certain: true, Legacy: true}}
		}, Fail, "chain INPUT of the legacy iptables' table filter (policy drop)", "iptables-legacy -I INPUT -p udp --dport 8472 -j ACCEPT", ""},
		{"legacy FORWARD", "forward", func(w *World) {
			w.Kernel.Walls[0].Obstacles = []kernel.Obstacle{{Family: "ip", Table: "filter", Chain: "FORWARD", Rule: "FORWARD rule 1", Certain: true, Legacy: true}}
		}, Fail, "FORWARD rule 1", "iptables-legacy -I FORWARD -i fl-+ -j ACCEPT", ""},
		{"firewall of nft", "firewall", func(w *World) {
			w.Kernel.Walls[2].Obstacles = []kernel.Obstacle{obstacle("inet", "fw", "in", "r", true)}
		}, Fail, "dropped", "nft insert rule inet fw in udp dport 8472 accept", ""},
		{"firewall unread", "firewall", func(w *World) { w.Kernel.Walls[2].Error = "not permitted" }, Unknown, "not permitted", "", ""},
		{"device gone", "devices", func(w *World) {
			w.Audit = []report.Difference{{Object: "link flannel.1", Change: "add link flannel.1"}}
		}, Fail, "add link flannel.1", restart, ""},
		{"device in the way", "devices", func(w *World) {
			w.Audit = []report.Difference{{Object: "link flannel.1", Change: "refuse link flannel.1 (a dummy device exists and is not ours; delete it ('ip link del flannel.1') or ...)"}}
		}, Fail, "refuse", "ip link del flannel.1", ""},
		{"device gone, plugin off", "devices", func(w *World) {
			w.Plugin.Error, w.Plugin.Enabled = "no answer", false
			w.Audit = []report.Difference{{Object: "link flannel.1", Change: "add link flannel.1"}}
		}, Fail, "add link flannel.1", enable, ""},
		{"no audit", "devices", func(w *World) { w.AuditErr = "no state files" }, Unknown, "no state files", "", ""},
		{"etcd down", "etcd", func(w *World) { w.Endpoint[0].Error = "connection refused" }, Fail, "refused", enable + " || systemctl start etcd", "192.0.2.2"},
		{"etcd here down", "etcd", func(w *World) { w.Endpoint[0] = report.Endpoint{URL: "http://127.0.0.1:2379", Error: "refused"} }, Fail, "refused", "systemctl start etcd", ""},
		{"etcd elsewhere down", "etcd", func(w *World) { w.Endpoint[0] = report.Endpoint{URL: "https://etcd:2379", Error: "refused"} }, Fail, "refused", "systemctl start etcd", "etcd"},
		{"etcd embedded, plugin off", "etcd", func(w *World) {
			w.Endpoint[0].Error, w.Plugin.Error, w.Plugin.Embedded, w.Plugin.Enabled = "refused", "no answer", true, false
		}, Fail, "in the plugin", enable, ""},
		{"etcd slow", "etcd", func(w *World) { w.Endpoint[0].Took = time.Second }, Warn, "1000.00 ms", "", ""},
		{"settings unknown", "etcd", func(w *World) { w.EtcdErr = "unknown" }, Unknown, "unknown", "", ""},
		{"clock", "clock", func(w *World) { w.Endpoint[0].Ahead = -time.Minute }, Warn, "-1m0s", "timedatectl", ""},
		{"no clock", "clock", func(w *World) { w.Endpoint[0].Dated = false }, Unknown, "does not tell", "", ""},
		{"lease lost", "lease", func(w *World) { w.Clusters[0].Leases = w.Clusters[0].Leases[1:] }, Fail, "10.5.1.0/24 is not in etcd", restart, ""},
		{"lease taken", "lease", func(w *World) {
			w.Host.Networks[0].Lease.State = report.Taken
			w.Clusters[0].Leases[0].PublicIP = there
		}, Fail, "192.0.2.2's", "docker network rm 0123456789ab", ""},
		{"lease not renewed", "lease", func(w *World) { w.Clusters[0].Leases[0].Left = 3 * time.Hour }, Fail, "21h0m0s", restart, ""},
		{"lease, etcd away", "lease", func(w *World) { w.StoreErr = "etcd does not answer" }, Unknown, "by this host's files", "", ""},
		{"junk", "leases", func(w *World) { w.Clusters[0].Odd = []report.Odd{{Key: "/p/subnets/x", Reason: "not a subnet"}} }, Warn, "not a subnet", "etcdctl --endpoints=http://192.0.2.2:2379 del '/p/subnets/x'", ""},
		{"other backend", "leases", func(w *World) { w.Clusters[0].Leases[1].Odd = []string{"backend udp"} }, Warn, "backend udp", "", ""},
		{"twin", "duplicate", func(w *World) { w.Clusters[0].Leases[1].PublicIP = here }, Fail, "10.5.1.0/24 and 10.5.2.0/24", "PUBLIC_IP=", "the host of 10.5.2.0/24"},
		{"twin of an address that is not ours", "duplicate", func(w *World) {
			w.Clusters[0].Leases[1].PublicIP = here
			w.Kernel.Interfaces[1].Addrs = nil
		}, Fail, "both", "PUBLIC_IP=", ""},
		{"leftover", "duplicate", func(w *World) {
			w.Clusters[0].Leases[1].PublicIP, w.Clusters[0].Leases[1].Left = here, time.Hour
		}, Fail, "nobody renews", "flannel doctor forget 10.5.2.0/24", ""},
		{"peer gone", "peer", func(w *World) {
			w.Peers[0].Underlay, w.Peers[0].Overlay, w.Clusters[0].Leases[1].Left = Echo{}, Echo{}, time.Hour
		}, Fail, "has not renewed", "flannel doctor forget 10.5.2.0/24", ""},
		{"peer silent", "peer", func(w *World) { w.Peers[0].Underlay, w.Peers[0].Overlay = Echo{}, Echo{} }, Fail, "yet renewed", "", ""},
		{"peer hides", "peer", func(w *World) { w.Peers[0].Underlay = Echo{} }, OK, "ICMP", "", ""},
		{"peer without a way", "peer", func(w *World) { w.Peers[0].Underlay, w.Peers[0].Overlay = Echo{Error: "unreachable"}, Echo{} }, Fail, "unreachable", "", ""},
		{"peer left out", "peer", func(w *World) { w.Peers[0].Skipped = "no VtepMAC" }, Warn, "no VtepMAC", "", ""},
		{"tunnel closed", "tunnel", func(w *World) { w.Peers[0].Overlay = Echo{} }, Fail, "nothing comes through UDP port 8472", "iptables-nft -I INPUT -p udp --dport 8472 -j ACCEPT", "192.0.2.2"},
		{"tunnel refused", "tunnel", func(w *World) { w.Peers[0].Overlay, w.Peers[0].Refused = Echo{}, true }, Fail, "refuses UDP port 8472", enable + " || iptables", "192.0.2.2"},
		{"tunnel, and it is here", "tunnel", func(w *World) {
			w.Peers[0].Overlay = Echo{}
			w.Kernel.Walls[2].Obstacles = []kernel.Obstacle{obstacle("inet", "fw", "in", "r", true)}
		}, Fail, "silent", "", ""},
		{"path", "mtu", func(w *World) { w.Peers[0].Path = 1400 }, Fail, "1400 bytes pass", "ip link set eth0 mtu 1400", ""},
		{"interface narrow for IPv6", "interface", func(w *World) { both(w); w.Host.Networks[0].MTU = 1450 }, Fail, "become 1520", "mtu 1520", ""},
		{"FORWARD of ip6tables", "forward", func(w *World) {
			both(w)
			w.Kernel.Walls[3].Obstacles = []kernel.Obstacle{obstacle("ip6", "filter", "FORWARD", "FORWARD handle 3", true)}
		}, Fail, "handle 3", "ip6tables-nft -I FORWARD -i fl-+ -j ACCEPT && ip6tables-nft -I FORWARD -o fl-+ -j ACCEPT", ""},
		{"bridge, IPv6 only", "br_netfilter", func(w *World) {
			both(w)
			w.Kernel.Sysctls = map[string]string{"bridge/bridge-nf-call-iptables": "0", "bridge/bridge-nf-call-ip6tables": "1"}
			w.Kernel.Walls[1].Obstacles = []kernel.Obstacle{obstacle("ip", "f", "c", "r", true)} // not met
			w.Kernel.Walls[4].Obstacles = []kernel.Obstacle{obstacle("ip6", "f", "c", "r", true)}
		}, Fail, "table ip6 f", "nft insert rule ip6 f c", ""},
		{"firewall of IPv6", "firewall", func(w *World) {
			both(w)
			w.Kernel.Walls[5].Obstacles = []kernel.Obstacle{obstacle("ip6", "filter", "INPUT", "r", true)}
		}, Fail, "dropped", "ip6tables-nft -I INPUT -p udp --dport 8472 -j ACCEPT", ""},
		{"firewall of IPv6, perhaps", "firewall", func(w *World) {
			both(w).Overlay = Echo{}
			w.Kernel.Walls[5].Obstacles = []kernel.Obstacle{obstacle("ip6", "filter", "INPUT", "r", false)}
		}, Warn, "perhaps", "ip6tables-nft", ""},
		{"peer, IPv6", "peer", func(w *World) { both(w) }, OK, "answers in 2.00 ms", "", ""},
		{"peer silent over IPv6", "peer", func(w *World) { y := both(w); y.Underlay, y.Overlay = Echo{}, Echo{} }, Fail, "over IPv4, and not over IPv6", "", "192.0.2.2"},
		{"peer left out over IPv6", "peer", func(w *World) { both(w).Skipped = "no VtepMAC" }, Warn, "over IPv6: no VtepMAC", "", ""},
		{"tunnel of IPv6 closed", "tunnel", func(w *World) { both(w).Overlay = Echo{} }, Warn, "IPv6 does not, to UDP port 8472", "ip6tables-nft -I INPUT -p udp --dport 8472 -j ACCEPT", "192.0.2.2"},
		{"tunnel carries no IPv6", "tunnel", func(w *World) {
			y := both(w)
			y.PublicIP, y.Underlay, y.Overlay = there, Echo{}, Echo{}
		}, Warn, "IPv6 does not", "", "192.0.2.2"},
		{"tunnel of IPv6, and it is here", "tunnel", func(w *World) {
			both(w).Overlay = Echo{}
			w.Kernel.Walls[5].Obstacles = []kernel.Obstacle{obstacle("inet", "fw", "in", "r", true)}
		}, Fail, "silent", "", ""},
		{"tunnel closed, and not by IPv6", "tunnel", func(w *World) {
			both(w)
			w.Peers[0].Overlay = Echo{}
			w.Kernel.Walls[5].Obstacles = []kernel.Obstacle{obstacle("ip6", "fw", "in", "r", true)}
		}, Fail, "nothing comes through UDP port 8472", "iptables-nft -I INPUT -p udp", "192.0.2.2"},
		{"path of IPv6 below all", "mtu", func(w *World) { y := both(w); y.Path, y.Narrow = 0, true }, Fail, "not even 1280", "", ""},
		{"path of IPv6", "mtu", func(w *World) { both(w).Path = 1400 }, Fail, "1400 bytes pass, 1500", "ip link set eth0 mtu 1400", ""},
		{"checksum", "checksum", func(w *World) { w.Peers[0].Sums = probe.Faulty }, Fail, "only without", "ethtool -K flannel.1 tx off", ""},
		{"checksum untold", "checksum", func(w *World) { w.Peers[0].Sums = probe.Undetermined }, Unknown, "no datagram", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := sound()
			c.fault(w)
			all := Examine(w)
			for _, v := range about(all, c.check) {
				if v.State != c.state || !strings.Contains(v.Found, c.found) || !strings.Contains(v.Mend, c.mend) || v.On != c.on || c.mend == "" && v.Mend != "" {
					continue
				}
				want := ExitFine
				if c.state == Fail || len(w.Peers) > 0 && !w.Peers[0].Overlay.Came {
					want = ExitFailed
				}
				if !w.Plugin.Answers() {
					want = ExitUnreachable
				}
				if got := ExitCode(all); got != want {
					t.Errorf("exit code %d, want %d", got, want)
				}
				return
			}
			t.Errorf("found %+v", about(all, c.check))
		})
	}
}

// TestNoNetwork is a host on which nothing was made yet.
func TestNoNetwork(t *testing.T) {
	w := sound()
	w.Host.Networks, w.Peers, w.Kernel.Walls, w.Clusters = nil, nil, nil, nil
	for _, v := range Examine(w) {
		if v.State != OK {
			t.Errorf("%+v", v)
		}
	}
}

// TestNothingKnown is a host where nothing could be read.
func TestNothingKnown(t *testing.T) {
	all := Examine(&World{
		Plugin: Plugin{Error: "no answer", Engine: "no answer"}, HostErr: "x", AuditErr: "x", EtcdErr: "x", StoreErr: "x", Probe: "x",
		Kernel: Kernel{Error: "x", FeaturesErr: "x"},
	})
	for _, c := range Checks() {
		found := about(all, c.Name)
		if len(found) == 0 {
			t.Errorf("check %s says nothing", c.Name)
		}
		for _, v := range found {
			if v.State == OK && v.Check != "forward" && v.Check != "firewall" && v.Check != "br_netfilter" {
				t.Errorf("%s claims %q of what nobody knows", v.Check, v.Found)
			}
		}
	}
	if code := ExitCode(all); code != ExitUnreachable {
		t.Errorf("exit code %d", code)
	}
}

// TestLegacyOnce has a policy of the legacy iptables that two checks see.
func TestLegacyOnce(t *testing.T) {
	w := sound()
	w.Kernel.Legacy, w.Kernel.LegacyWhy = "iptables-legacy -I", "drops"
	w.Kernel.Walls[0].Obstacles = []kernel.Obstacle{{Family: "ip", Table: "filter", Chain: "FORWARD", Rule: "policy drop", Certain: true, Legacy: true}}
	for _, v := range Examine(w) {
		if (v.State == OK) == (v.Check == "legacy") {
			t.Errorf("%+v", v)
		}
	}
}

func TestText(t *testing.T) {
	w := sound()
	w.Peers[0].Overlay, w.Kernel.Sysctls["ipv4/ip_forward"] = Echo{}, "0"
	all := Examine(w)
	text := Text(all, false)
	for _, line := range []string{
		"ok   plugin        answers, version v1\n",
		"FAIL ip_forward    net.ipv4.ip_forward=0; the kernel drops what containers of two hosts send each other\n       sysctl -w net.ipv4.ip_forward=1\n",
		"       on 192.0.2.2: iptables-nft -I INPUT",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	for i := range text {
		if text[i] > 126 {
			t.Fatalf("byte %#x without a terminal", text[i])
		}
	}
	if pretty := Text(all, true); !strings.Contains(pretty, "✗") || !strings.Contains(pretty, "✓") {
		t.Error(pretty)
	}
}

// TestCrowd: a cluster of thousands is no page of ticks.
func TestCrowd(t *testing.T) {
	w := sound()
	for range 300 {
		w.Peers = append(w.Peers, w.Peers[0])
	}
	w.Peers[7].Path, w.Left = 1400, 44
	found := about(Examine(w), "mtu")
	if len(found) != 3 || !strings.HasPrefix(found[0].Found, "300 hosts") || found[1].State != Fail || !strings.Contains(found[2].Found, "44 more") {
		t.Errorf("%+v", found)
	}
}
