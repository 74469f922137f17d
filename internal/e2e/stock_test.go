//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// TestStockPeer has a host whose lease and data path are made as stock flannel
// makes them, and a plugin host that it can be reached from and reaches, with
// nothing but what the two leases say.
func TestStockPeer(t *testing.T) {
	ours := cluster.hosts[1:] // its etcd is embedded, as on the first of any hosts
	stock, err := cluster.lab.AddHost(netlab.HostSpec{Name: "stock"})
	if err != nil {
		t.Fatal(err)
	}
	sh(t, stock, "ip link add c0 type veth peer name c1; ip addr add 10.5.200.1/24 dev c0; ip link set c0 up; ip link set c1 up")
	for _, c := range []struct {
		name, backend, lease string
		path                 func(t *testing.T, stock *netlab.Host, peer stockLease)
	}{
		{"vxlan", "vxlan", `{"PublicIP":"%s","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4a:12:5f:0c:9b:77"}}`, stockVXLAN},
		{"host-gw", "host-gw", `{"PublicIP":"%s","PublicIPv6":null,"BackendType":"host-gw"}`, stockHostGW},
		{"udp", "udp", `{"PublicIP":"%s","PublicIPv6":null}`, stockUDP},
		{"udp, oldest form", "udp", `{"PublicIP":"%s"}`, stockUDP},
	} {
		t.Run(c.name, func(t *testing.T) {
			install(t, ours, "BACKEND="+c.backend)
			etcd := awaitEtcd(t, ours[0])
			ctl := func(args ...string) string {
				out, err := cluster.lab.Etcdctl(t.Context(), etcd, args...)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			ctl("put", "/coreos.com/network/subnets/10.5.200.0-24", fmt.Sprintf(c.lease, stock.Addr()))
			create(t, ours)
			here := start(t, ours[0], "here", "busybox", "sleep", "1000")
			subnet := head(here) + ".0"
			text := ctl("get", "--print-value-only", "/coreos.com/network/subnets/"+subnet+"-24")
			peer := stockLease{Subnet: subnet}
			if err := json.Unmarshal([]byte(text), &peer); err != nil {
				t.Fatalf("our lease %s: %v", text, err)
			}
			t.Log("our lease:", text)
			if want := ours[0].Addr().String(); peer.PublicIP != want {
				t.Errorf("PublicIP %s, want %s", peer.PublicIP, want)
			}
			c.path(t, stock, peer)
			sh(t, stock, fmt.Sprintf("ping -c 2 -i 0.2 -w 10 -I 10.5.200.1 -s 3000 %s", here))
			docker(t, ours[0], "exec", "here", "ping", "-c", "2", "-i", "0.2", "-w", "10", "-s", "3000", "10.5.200.1")
		})
	}
}

// stockLease is a lease as stock flannel reads it.
type stockLease struct {
	Subnet      string `json:"-"`
	PublicIP    string
	PublicIPv6  *string
	BackendType string
	BackendData struct {
		VNI     int
		VtepMAC string
	}
}

// routes lays the way to a peer for the length of a test.
func routes(t *testing.T, stock *netlab.Host, set, unset string) {
	t.Helper()
	sh(t, stock, "set -e; "+set)
	t.Cleanup(func() {
		if _, err := stock.Exec(context.Background(), "sh", "-c", unset); err != nil {
			t.Error(err)
		}
	})
}

func stockVXLAN(t *testing.T, stock *netlab.Host, peer stockLease) {
	if peer.BackendType != "vxlan" || peer.BackendData.VNI != 1 {
		t.Fatalf("our lease: %+v", peer)
	}
	routes(t, stock, fmt.Sprintf(`ip link add flannel.1 type vxlan id 1 dev eth0 local %[1]s dstport 8472 nolearning
		ip link set flannel.1 address 4a:12:5f:0c:9b:77 mtu 1450 up
		ip addr add 10.5.200.0/32 dev flannel.1
		ip neigh add %[2]s lladdr %[3]s dev flannel.1 nud permanent
		bridge fdb add %[3]s dev flannel.1 dst %[4]s self permanent
		ip route add %[2]s/24 via %[2]s dev flannel.1 onlink`, stock.Addr(), peer.Subnet, peer.BackendData.VtepMAC, peer.PublicIP),
		"ip link del flannel.1")
}

func stockHostGW(t *testing.T, stock *netlab.Host, peer stockLease) {
	if peer.BackendType != "host-gw" {
		t.Fatalf("our lease: %+v", peer)
	}
	routes(t, stock, fmt.Sprintf("ip route add %s/24 via %s", peer.Subnet, peer.PublicIP), fmt.Sprintf("ip route del %s/24", peer.Subnet))
}

func stockUDP(t *testing.T, stock *netlab.Host, peer stockLease) {
	if peer.BackendType != "" {
		t.Fatalf("our lease: %+v", peer)
	}
	routes(t, stock, `ip tuntap add flannel0 mode tun
		ip link set flannel0 mtu 1472 up
		ip addr add 10.5.200.0/32 dev flannel0
		ip route add 10.5.0.0/16 dev flannel0`, "ip link del flannel0")
	p, err := stock.Start("env", roleEnv+"=flanneld", os.Args[0], stock.Addr().String()+":8285", peer.PublicIP+":8285")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
}
