//go:build lab

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// removeAll removes every container of a host.
func removeAll(t testing.TB, h *netlab.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if _, err := h.Exec(ctx, "sh", "-c", "docker ps -aq | xargs -r -n 5 -P 8 docker rm -f"); err != nil {
		t.Error(err)
	}
}

// traces is all that the plugin could leave in a host's kernel, without
// counters and interface numbers.
func traces(t testing.TB, h *netlab.Host) string {
	t.Helper()
	out := sh(t, h, `ip -o link; ip -o -4 addr; ip route show table all; nft list ruleset; ls /run/docker/plugins; bridge fdb 2>/dev/null; ip neigh show nud permanent`)
	var kept []string
	for line := range strings.SplitSeq(out, "\n") {
		if strings.Contains(line, "fl-") || strings.Contains(line, "fl") && strings.Contains(line, "veth") ||
			strings.Contains(line, "flannel") || strings.Contains(line, "flv") || strings.Contains(line, "flp") || strings.Contains(line, "10.5.") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

func TestNothingIsLeft(t *testing.T) {
	for _, h := range cluster.hosts {
		if before := traces(t, h); before != "" {
			t.Fatalf("%s before:\n%s", h.Name(), before)
		}
	}
	install(t, cluster.hosts)
	for _, h := range cluster.hosts {
		docker(t, h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", network)
		docker(t, h, "run", "--rm", "--network", network, "-p", "8080:80", "busybox", "true")
		if during := traces(t, h); !strings.Contains(during, "flannel.1") || !strings.Contains(during, "fl-") || !strings.Contains(during, "table inet docker-flannel") {
			t.Errorf("the probe does not see the network on %s:\n%s", h.Name(), during)
		}
	}
	if n := len(leases(t)); n != 2 {
		t.Errorf("%d leases", n)
	}
	docker(t, cluster.hosts[1], "network", "rm", network)
	leasesLeft(t, 1)
	docker(t, cluster.hosts[0], "network", "rm", network)
	leasesLeft(t, 0)
	for _, h := range cluster.hosts {
		docker(t, h, "plugin", "disable", pluginName)
		docker(t, h, "plugin", "rm", pluginName)
		if after := traces(t, h); after != "" {
			t.Errorf("%s after:\n%s", h.Name(), after)
		}
		docker(t, h, "plugin", "create", pluginName, "/plugin") // what install takes away
	}
}

func TestRefusals(t *testing.T) {
	install(t, cluster.hosts)
	for _, h := range cluster.hosts {
		t.Run(h.Name(), func(t *testing.T) {
			refused := func(says []string, args ...string) {
				t.Helper()
				err := try(t, h, append([]string{"network", "create"}, args...)...)
				if err == nil {
					t.Errorf("docker network create %s: not refused", strings.Join(args, " "))
					undo(t, h, "network", "rm", args[len(args)-1])
					return
				}
				t.Log(err)
				contains(t, "the answer to "+strings.Join(args, " "), err.Error(), says...)
			}
			ours := []string{"-d", "flannel", "--ipam-driver", "flannel"}
			refused([]string{"docker network create -d flannel --ipam-driver flannel"}, "-d", "flannel", "x")
			refused([]string{"color=red"}, append(ours, "-o", "color=red", "x")...)
			refused([]string{"color", "red"}, append(ours, "--ipam-opt", "color=red", "x")...)
			refused([]string{"172.30.0.0/16", cidr}, append(ours, "--subnet", "172.30.0.0/16", "x")...)
			refused([]string{"--ipv6"}, append(ours, "--ipv6", "x")...)
			refused([]string{"1500", "1450"}, append(ours, "-o", "com.docker.network.driver.mtu=1500", "x")...)
			docker(t, h, append([]string{"network", "create"}, append(ours, network)...)...)
			undo(t, h, "network", "rm", network)
			refused([]string{"docker network rm"}, append(ours, "x")...)
		})
	}
}

func TestWrongSetting(t *testing.T) {
	expectErrors(t, cluster.hosts, "the plugin cannot work until this is mended.*MTU=huge")
	for _, h := range cluster.hosts {
		t.Run(h.Name(), func(t *testing.T) {
			from := len(engineLog(t, h))
			docker(t, h, "plugin", "create", pluginName, "/plugin")
			undo(t, h, "plugin", "rm", "-f", pluginName)
			docker(t, h, "plugin", "set", pluginName, "MTU=huge", "BACKEND=vxlam")
			docker(t, h, "plugin", "enable", pluginName)
			begin := time.Now()
			err := try(t, h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", network)
			if err == nil {
				t.Fatal("a network was made")
			}
			contains(t, "the answer", err.Error(), "MTU=huge", "576", "BACKEND=vxlam", "vxlan", "docker plugin set")
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("the answer took %s", took)
			}
			logged(t, h, from, `level=error.*MTU=huge`)
			docker(t, h, "plugin", "disable", "-f", pluginName)
			docker(t, h, "plugin", "set", pluginName, "MTU=1300", "BACKEND=vxlan")
			docker(t, h, "plugin", "enable", pluginName)
			create(t, []*netlab.Host{h})
			contains(t, "MTU", docker(t, h, "run", "--rm", "--network", network, "busybox", "cat", "/sys/class/net/eth0/mtu"), "1300")
		})
	}
}

func TestManagedName(t *testing.T) {
	install(t, cluster.hosts)
	for _, h := range cluster.hosts {
		docker(t, h, "network", "create", "-d", pluginName+":latest", "--ipam-driver", pluginName+":latest", network)
		undo(t, h, "network", "rm", network)
		docker(t, h, "run", "--rm", "--network", network, "busybox", "true")
	}
}

func TestRegistry(t *testing.T) {
	registry, err := cluster.lab.Registry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := registry + "/docker-flannel:test"
	client := cluster.hosts[0].Root() + "/usr/bin/docker -H unix://" + cluster.hosts[0].EngineSocket()
	out, err := exec.CommandContext(t.Context(), "make", "-C", "../..", "push", "PLUGIN="+name, "DOCKER="+client).CombinedOutput()
	if err != nil {
		t.Fatalf("make push: %v\n%s", err, out)
	}
	url := fmt.Sprintf("http://%s:2379", cluster.hosts[0].Addr())
	for i, h := range cluster.hosts {
		etcd := []string{"ETCD_LISTEN=" + url, "ETCD_ENDPOINTS=" + url}[i]
		docker(t, h, "plugin", "install", "--grant-all-permissions", "--alias", pluginName, name, etcd)
		undo(t, h, "plugin", "rm", "-f", pluginName)
	}
	create(t, cluster.hosts)
	a := start(t, cluster.hosts[0], "ca", "busybox", "sleep", "600")
	docker(t, cluster.hosts[1], "run", "--rm", "--network", network, "busybox", "ping", "-c", "2", "-w", "5", a)
}

func TestPluginRestart(t *testing.T) {
	for _, backend := range []string{"vxlan", "host-gw", "udp"} {
		t.Run(backend, func(t *testing.T) {
			expectErrors(t, cluster.hosts, etcdAway) // which starts with the first host's plugin
			install(t, cluster.hosts, "BACKEND="+backend)
			s := &scene{hosts: cluster.hosts}
			s.furnish(t)
			hearts := s.hearts(t)
			for _, h := range cluster.hosts {
				docker(t, h, "plugin", "disable", "-f", pluginName)
				docker(t, h, "plugin", "enable", pluginName)
				docker(t, h, "run", "--rm", "--network", network, "busybox", "ping", "-c", "3", "-i", "0.2", "-w", "10", s.addrs[0])
			}
			allowed := 0
			if backend == "udp" { // carries nothing while the plugin is away
				allowed = int(2 * time.Second / beatEvery)
			}
			calm(t, hearts, allowed)
		})
	}
}

func TestDockerfile(t *testing.T) {
	h := cluster.hosts[0]
	sh(t, h, "mkdir -p /context/build")
	if err := h.CopyIn(t.Context(), pluginDir, "/context/build/plugin"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.ExecIn(t.Context(), strings.NewReader(string(text)), "sh", "-c", "cat >/context/Dockerfile"); err != nil {
		t.Fatal(err)
	}
	docker(t, h, "build", "-q", "-t", "rootfs", "/context")
	undo(t, h, "rmi", "-f", "rootfs")
	docker(t, h, "create", "--name", "rootfs", "rootfs")
	undo(t, h, "rm", "rootfs")
	sh(t, h, "mkdir -p /made && docker export rootfs | tar -C /made -x && cmp /made/flannel /plugin/rootfs/flannel && test -d /made/host/sysnet")
}
