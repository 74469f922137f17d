//go:build lab

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// server answers on port 80 with a megabyte of random bytes, and its sum.
const server = `mkdir /www && head -c 1000000 /dev/urandom >/www/blob && cd /www && sha256sum blob >sum && exec httpd -f -p 80`

func TestHostsTalk(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	install(t, cluster.hosts)
	create(t, cluster.hosts)
	a := start(t, one, "ca", "busybox", "sh", "-c", server)
	a2 := start(t, one, "ca2", "busybox", "sleep", "600")
	b := start(t, two, "cb", "-p", "8080:80", "busybox", "sh", "-c", server)
	start(t, one, "cc", "-p", "8080:80", "busybox", "sh", "-c", server)

	t.Run("addresses", func(t *testing.T) {
		if head(a) == head(b) || head(a) != head(a2) {
			t.Errorf("a %s and a2 %s on one host, b %s on the other", a, a2, b)
		}
		for i, h := range cluster.hosts {
			out := docker(t, h, "network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}", network)
			mine := head([]string{a, b}[i])
			contains(t, "network inspect on "+h.Name(), out, mine+".0/24", mine+".1")
		}
	})
	t.Run("ping", func(t *testing.T) {
		for _, p := range []struct {
			from *netlab.Host
			name string
			to   string
		}{{one, "ca", b}, {two, "cb", a}, {one, "ca", a2}, {one, "ca2", a}} {
			docker(t, p.from, "exec", p.name, "ping", "-c", "3", "-i", "0.2", "-w", "5", p.to)
		}
		sh(t, one, "ping -c 2 -w 5 "+b)
		sh(t, two, "ping -c 2 -w 5 "+a)
	})
	t.Run("download", func(t *testing.T) {
		fetch(t, one, "ca2", a)
		fetch(t, one, "ca2", b)
		fetch(t, two, "cb", a)
	})
	t.Run("mtu", func(t *testing.T) {
		contains(t, "a's interface", docker(t, one, "exec", "ca", "cat", "/sys/class/net/eth0/mtu"), "1450")
		docker(t, one, "exec", "ca", "ping", "-c", "2", "-w", "5", "-s", "1422", b)
	})
	t.Run("published ports", func(t *testing.T) {
		contains(t, "docker ps", docker(t, two, "ps", "--format", "{{.Ports}}"), "0.0.0.0:8080->80/tcp")
		contains(t, "docker port", docker(t, one, "port", "cc"), "0.0.0.0:8080")
		for _, from := range []*netlab.Host{one, two, cluster.lab.Wire()} {
			for _, to := range cluster.hosts {
				contains(t, "port 8080 of "+to.Name()+" from "+from.Name(), get(t, from, fmt.Sprintf("http://%s:8080/sum", to.Addr())), "blob")
			}
		}
	})
	t.Run("outside", func(t *testing.T) {
		docker(t, one, "exec", "ca", "ping", "-c", "2", "-w", "5", netlab.Outside)
		docker(t, two, "exec", "cb", "ping", "-c", "2", "-w", "5", netlab.Outside)
	})
	t.Run("leases", func(t *testing.T) { checkLeases(t, head(a), head(b)) })
	t.Run("devices", func(t *testing.T) {
		// What the seeds show of stock flannel: the device's own /32 and
		// the peer's onlink route.
		contains(t, "flannel.1", sh(t, one, "ip -d addr show flannel.1"), "mtu 1450", "inet "+head(a)+".0/32", "vxlan id 1", "dstport 8472", "nolearning")
		contains(t, "routes", sh(t, one, "ip route"), head(b)+".0/24 via "+head(b)+".0 dev flannel.1", "onlink")
	})
}

// head is the first three bytes of a dotted address.
func head(addr string) string { return addr[:max(strings.LastIndexByte(addr, '.'), 0)] }

// fetch downloads the megabyte from a server and checks its sum.
func fetch(t *testing.T, h *netlab.Host, name, from string) {
	t.Helper()
	docker(t, h, "exec", name, "sh", "-c", fmt.Sprintf(
		"mkdir -p /tmp/f && cd /tmp/f && timeout 10 wget -q http://%s/blob -O blob && timeout 10 wget -q http://%s/sum -O sum && sha256sum -c sum", from, from))
}

// get downloads a page as a program on a host would.
func get(t *testing.T, from *netlab.Host, url string) string {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: from.DialContext}}
	defer client.CloseIdleConnections()
	res, err := client.Get(url)
	if err != nil {
		t.Fatalf("from %s: %v", from.Name(), err)
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		t.Fatalf("from %s: %v", from.Name(), err)
	}
	return string(body)
}

// checkLeases holds the keys in etcd against what stock flannel writes.
func checkLeases(t *testing.T, subnets ...string) {
	t.Helper()
	url := fmt.Sprintf("http://%s:2379", cluster.hosts[0].Addr())
	out, err := cluster.lab.Etcdctl(t.Context(), url, "get", "--prefix", "/coreos.com/network/")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out, "\n")
	values := map[string]string{}
	for i := 0; i+1 < len(lines); i += 2 {
		values[lines[i]] = lines[i+1]
	}
	if got, want := values["/coreos.com/network/config"], `{"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}`; got != want {
		t.Errorf("config %s, want %s", got, want)
	}
	if len(values) != 1+len(subnets) {
		t.Errorf("keys: %s", out)
	}
	for i, subnet := range subnets {
		key := "/coreos.com/network/subnets/" + subnet + ".0-24"
		mac := sh(t, cluster.hosts[i], "cat /sys/class/net/flannel.1/address")
		want := fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"%s"}}`, cluster.hosts[i].Addr(), mac)
		if values[key] != want {
			t.Errorf("%s holds %s, want %s", key, values[key], want)
		}
	}
}

func TestFixedAddress(t *testing.T) {
	install(t, cluster.hosts)
	create(t, cluster.hosts, "--subnet", cidr)
	for i, h := range cluster.hosts {
		first := start(t, h, fmt.Sprintf("first%d", i), "busybox", "sleep", "600")
		want := head(first) + ".77"
		name := fmt.Sprintf("fixed%d", i)
		if got := start(t, h, name, "--ip", want, "--mac-address", "02:42:00:00:77:77", "busybox", "sleep", "600"); got != want {
			t.Errorf("--ip %s gives %s", want, got)
		}
		contains(t, "MAC", docker(t, h, "exec", name, "cat", "/sys/class/net/eth0/address"), "02:42:00:00:77:77")
		docker(t, h, "restart", "-t", "0", name)
		if got := address(t, h, name); got != want {
			t.Errorf("after a restart %s has %s", want, got)
		}
		err := try(t, h, "run", "--rm", "--network", network, "--ip", want, "busybox", "true")
		if err == nil {
			t.Errorf("address %s given twice", want)
		} else {
			contains(t, "second --ip", err.Error(), want)
		}
		undo(t, h, "container", "prune", "-f")
	}
}

// TestRestartedAddress: a container that comes back under its address is found
// at once by those who have talked to it, although its engine gives it another
// MAC.
func TestRestartedAddress(t *testing.T) {
	install(t, cluster.hosts)
	create(t, cluster.hosts, "--subnet", cidr)
	var askers []string
	for _, h := range cluster.hosts {
		askers = append(askers, start(t, h, "asker", "busybox", "sleep", "600"))
	}
	for i, h := range cluster.hosts {
		addr := start(t, h, "fixed", "--ip", head(askers[i])+".77", "busybox", "sleep", "600")
		mac := func() string { return docker(t, h, "exec", "fixed", "cat", "/sys/class/net/eth0/address") }
		before := mac()
		ask := func(patience string) {
			docker(t, cluster.hosts[1-i], "exec", "asker", "ping", "-c", "1", "-w", patience, addr)
		}
		ask("5")
		docker(t, h, "restart", "-t", "0", "fixed")
		ask("2")
		if mac() == before {
			t.Errorf("host %s: the restarted container has its MAC %s again, so nothing was tried", h.Name(), before)
		}
	}
}

func TestFiftyAtOnce(t *testing.T) {
	install(t, cluster.hosts)
	create(t, cluster.hosts)
	const count = 50
	type result struct{ addr, err string }
	results := make(chan result, count)
	for i := range count {
		h := cluster.hosts[i%len(cluster.hosts)]
		go func() {
			name := fmt.Sprintf("many%d", i)
			_, err := h.Docker(t.Context(), "run", "-d", "--name", name, "--network", network, "busybox", "sleep", "600")
			if err != nil {
				results <- result{err: err.Error()}
				return
			}
			text, err := h.Docker(t.Context(), "inspect", name)
			var about []struct {
				State           struct{ Running bool }
				NetworkSettings struct {
					Networks map[string]struct{ IPAddress string }
				}
			}
			if err == nil {
				err = json.Unmarshal([]byte(text), &about)
			}
			switch {
			case err != nil:
				results <- result{err: err.Error()}
			case len(about) != 1 || !about[0].State.Running:
				results <- result{err: name + " does not run"}
			default:
				results <- result{addr: about[0].NetworkSettings.Networks[network].IPAddress}
			}
		}()
	}
	for _, h := range cluster.hosts {
		t.Cleanup(func() { removeAll(t, h) })
	}
	seen := map[string]bool{}
	for range count {
		r := <-results
		switch {
		case r.err != "":
			t.Error(r.err)
		case seen[r.addr]:
			t.Errorf("address %s given twice", r.addr)
		}
		seen[r.addr] = true
	}
}
