//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// stockPair is the lease of a dual-stack host as stock flannel reads it; the
// subnets are in its key.
type stockPair struct {
	stockLease
	PublicIPv6    string
	Subnet6       string `json:"-"`
	BackendV6Data struct {
		VNI     int
		VtepMAC string
	}
}

// TestStockDualStack has a host whose dual-stack lease and data path are made as
// stock flannel makes them, and a plugin host, with nothing but the two leases.
func TestStockDualStack(t *testing.T) {
	ours := cluster.hosts[1:]
	stock, err := cluster.lab.AddHost(netlab.HostSpec{Name: "stocksix"})
	if err != nil {
		t.Fatal(err)
	}
	addrs := addIPv6(t, ours[0], stock)
	sh(t, stock, "ip link add c0 type veth peer name c1; ip addr add 10.5.200.1/24 dev c0; ip addr add fd00:5:0:c8::1/64 dev c0 nodad; ip link set c0 up; ip link set c1 up")
	for _, c := range []struct {
		backend, lease string
		path           func(t *testing.T, stock *netlab.Host, addr string, peer stockPair)
	}{
		{"vxlan", `{"PublicIP":"%s","PublicIPv6":"%s","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4a:12:5f:0c:9b:77"},"BackendV6Data":{"VNI":1,"VtepMAC":"4a:12:5f:0c:9b:66"}}`, stockVXLANPair},
		{"host-gw", `{"PublicIP":"%s","PublicIPv6":"%s","BackendType":"host-gw"}`, stockHostGWPair},
	} {
		t.Run(c.backend, func(t *testing.T) {
			install(t, ours, "BACKEND="+c.backend, "IPV6_NETWORK="+cidr6)
			etcd := awaitEtcd(t, ours[0])
			ctl := func(args ...string) string {
				out, err := cluster.lab.Etcdctl(t.Context(), etcd, args...)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			ctl("put", "/coreos.com/network/subnets/10.5.200.0-24&fd00:5:0:c8::-64", fmt.Sprintf(c.lease, stock.Addr(), addrs[1]))
			create(t, ours, "--ipv6")
			here4, here := dual(t, ours[0], "here", "busybox", "sleep", "1000")
			peer := stockPair{Subnet6: strings.TrimSuffix(here, "2")}
			peer.Subnet = head(here4) + ".0"
			key := "/coreos.com/network/subnets/" + peer.Subnet + "-24&" + peer.Subnet6 + "-64"
			text := ctl("get", "--print-value-only", key)
			t.Log("our lease:", key, text)
			if err := json.Unmarshal([]byte(text), &peer); err != nil {
				t.Fatalf("our lease %s: %q, %v", key, text, err)
			}
			if peer.PublicIPv6 != addrs[0] || peer.BackendType != c.backend {
				t.Fatalf("our lease: %+v", peer)
			}
			c.path(t, stock, addrs[1], peer)
			green(t, ours)
			for from, to := range map[string]string{"10.5.200.1": here4, "fd00:5:0:c8::1": here} {
				sh(t, stock, fmt.Sprintf("ping -c 2 -i 0.2 -w 10 -I %s -s 3000 %s", from, to))
				docker(t, ours[0], "exec", "here", "ping", "-c", "2", "-i", "0.2", "-w", "10", "-s", "3000", from)
			}
		})
	}
}

func stockVXLANPair(t *testing.T, stock *netlab.Host, addr string, peer stockPair) {
	stockVXLAN(t, stock, peer.stockLease)
	if peer.BackendV6Data.VNI != 1 || peer.BackendV6Data.VtepMAC == peer.BackendData.VtepMAC {
		t.Fatalf("our lease: %+v", peer)
	}
	routes(t, stock, fmt.Sprintf(`ip link add flannel-v6.1 type vxlan id 1 dev eth0 local %[1]s dstport 8472 nolearning
		ip link set flannel-v6.1 address 4a:12:5f:0c:9b:66 mtu 1430 up
		ip addr add fd00:5:0:c8::/128 dev flannel-v6.1 nodad
		ip neigh add %[2]s lladdr %[3]s dev flannel-v6.1 nud permanent
		bridge fdb add %[3]s dev flannel-v6.1 dst %[4]s self permanent
		ip route add %[2]s/64 via %[2]s dev flannel-v6.1 onlink`, addr, peer.Subnet6, peer.BackendV6Data.VtepMAC, peer.PublicIPv6),
		"ip link del flannel-v6.1")
}

func stockHostGWPair(t *testing.T, stock *netlab.Host, _ string, peer stockPair) {
	stockHostGW(t, stock, peer.stockLease)
	routes(t, stock, fmt.Sprintf("ip route add %s/64 via %s", peer.Subnet6, peer.PublicIPv6), fmt.Sprintf("ip route del %s/64", peer.Subnet6))
}
