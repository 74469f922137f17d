//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

const metricsAddr = ":9470"

// equipCLI makes docker flannel a command of a host for the length of a test.
func equipCLI(t *testing.T, h *netlab.Host) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "make", "-C", "../..", "install-cli", "DESTDIR="+h.Root()).CombinedOutput()
	if err != nil {
		t.Fatalf("make install-cli: %v\n%s", err, out)
	}
	contains(t, "make install-cli", string(out), "docker flannel status")
	t.Cleanup(func() {
		if _, err := h.Exec(context.Background(), "rm", "/usr/local/lib/docker/cli-plugins/docker-flannel"); err != nil {
			t.Error(err)
		}
	})
}

// flannel runs docker flannel on a host; it must end with the exit code.
func flannel(t *testing.T, h *netlab.Host, code int, args ...string) string {
	t.Helper()
	out, got := tryFlannel(t, h, args...)
	if got != code {
		t.Errorf("docker flannel %s on %s: exit code %d, want %d: %s", strings.Join(args, " "), h.Name(), got, code, out)
	}
	return out
}

// tryFlannel returns what was printed or, with an exit code, said besides.
func tryFlannel(t *testing.T, h *netlab.Host, args ...string) (out string, code int) {
	t.Helper()
	out, err := h.Docker(t.Context(), append([]string{"flannel"}, args...)...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return out + "\n" + err.Error(), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out, 0
}

// page reads what a host serves at METRICS_LISTEN.
func page(t *testing.T, h *netlab.Host, path string) (status int, text string) {
	t.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: h.DialContext, DisableKeepAlives: true}}
	res, err := client.Get("http://" + h.Addr().String() + metricsAddr + path)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// shows waits until a host's metrics have every line.
func shows(t *testing.T, h *netlab.Host, lines ...string) {
	t.Helper()
	wait(t, "the metrics of "+h.Name(), func() error {
		_, text := page(t, h, "/metrics")
		for _, line := range lines {
			if !strings.Contains(text, "\n"+line+"\n") {
				return fmt.Errorf("%q is not in\n%s", line, text)
			}
		}
		return nil
	})
}

// answers waits until a host's page has a status and says something.
func answers(t *testing.T, h *netlab.Host, path string, status int, says string) {
	t.Helper()
	wait(t, path+" of "+h.Name(), func() error {
		if got, text := page(t, h, path); got != status || !strings.Contains(text, says) {
			return fmt.Errorf("%d %s, want %d with %q", got, text, status, says)
		}
		return nil
	})
}

// TestTool looks at two hosts as an operator does, while things go wrong.
func TestTool(t *testing.T) {
	expectErrors(t, cluster.hosts, repairs, etcdAway, "lease not renewed, trying on.*is leased to host 192.0.2.200")
	etcd, err := cluster.lab.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{hosts: cluster.hosts, etcd: etcd}
	h := s.hosts[0]
	for _, h := range s.hosts {
		equipCLI(t, h)
		contains(t, "without a plugin", flannel(t, h, 3, "status"), "docker plugin enable docker-flannel")
		installWith(t, h, "ETCD_ENDPOINTS="+etcd.Endpoint, "METRICS_LISTEN="+metricsAddr)
		contains(t, "docker --help", docker(t, h, "--help"), "flannel networks")
		wait(t, "status without a network", func() error {
			out, code := tryFlannel(t, h, "status")
			if code != 0 || !strings.Contains(out, "no networks on this host") || !strings.Contains(out, "answers since") {
				return fmt.Errorf("exit code %d: %s", code, out)
			}
			return nil
		})
	}
	t.Cleanup(func() { s.ctl(t, "del", "--prefix", prefix) })
	t.Run("leave", func(t *testing.T) { s.leave(t, h) })
	spare(t, s.ctl, func() { s.furnish(t) })
	t.Run("reads", s.reads)
	t.Run("skipped", func(t *testing.T) {
		shows(t, h, `flannel_peers{network="",state="skipped"} 0`, `flannel_skipped_entries_total{network=""} 0`)
		s.ctl(t, "put", prefix+"/subnets/10.5.201.0-24", `{"PublicIP":"192.0.2.200","BackendType":"warp"}`)
		shows(t, h, `flannel_peers{network="",state="skipped"} 1`, `flannel_peers{network="",state="reachable"} 1`, `flannel_skipped_entries{network=""} 1`)
		contains(t, "status", flannel(t, h, 0, "status"), `skipped: host 192.0.2.200 uses backend "warp"`, "SKIPPED")
		contains(t, "leases", flannel(t, h, 0, "leases"), "backend warp, the network's is vxlan")
		s.ctl(t, "del", prefix+"/subnets/10.5.201.0-24")
		shows(t, h, `flannel_peers{network="",state="skipped"} 0`, `flannel_skipped_entries{network=""} 0`, `flannel_skipped_entries_total{network=""} 1`)
	})
	t.Run("repair", func(t *testing.T) {
		if _, text := page(t, h, "/metrics"); strings.Contains(text, `flannel_repairs_total{kind="link"}`) {
			t.Errorf("before: %s", text)
		}
		sh(t, h, "ip link del flannel.1")
		wait(t, "the count", func() error {
			if _, text := page(t, h, "/metrics"); !strings.Contains(text, `flannel_repairs_total{kind="link"}`) {
				return errors.New(text)
			}
			return nil
		})
		contains(t, "status", flannel(t, h, 0, "status"), "repaired since", " link (")
		answers(t, h, "/status.json", 200, `"Text":"repaired what others changed"`)
	})
	t.Run("etcd away", func(t *testing.T) { s.etcdAway(t, h) })
	t.Run("alarm", func(t *testing.T) { s.alarm(t, h) })
	s.sound(t)
}

// reads checks what the commands print of a cluster that is well.
func (s *scene) reads(t *testing.T) {
	for i, h := range s.hosts {
		mine, other := head(s.addrs[i]), head(s.addrs[1-i])
		shows(t, h, `flannel_lease_held{network=""} 1`, `flannel_leases{network=""} 2`, `flannel_endpoints{network=""} 1`, `flannel_ready 1`)
		docker(t, h, "exec", echoes[i], "ping", "-c", "2", "-i", "0.2", "-w", "5", s.addrs[1-i])
		out := flannel(t, h, 0, "status")
		t.Log("\n" + out)
		contains(t, "status", out, "all is well", mine+".0/24", "held", other+".0/24", "reachable", s.addrs[i], "etcd     "+s.etcd.Endpoint)
		contains(t, "leases", flannel(t, h, 0, "leases"), mine+".0/24", other+".0/24", "this host", s.hosts[1-i].Addr().String(), " of 1d")
		contains(t, "env", flannel(t, h, 0, "env"), "FLANNEL_NETWORK="+cidr+"\nFLANNEL_SUBNET="+mine+".1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false")
		contains(t, "network ls", flannel(t, h, 0, "network", "ls"), "default", cidr, "vxlan", h.Addr().String())
		contains(t, "version", flannel(t, h, 0, "version"), "plugin", "go1")
		contains(t, "a wrong command", flannel(t, h, 2, "stats"), "unknown command")
		var parsed struct{ Networks []struct{ Subnet string } }
		if err := json.Unmarshal([]byte(flannel(t, h, 0, "status", "--json")), &parsed); err != nil || len(parsed.Networks) != 1 || parsed.Networks[0].Subnet != mine+".0/24" {
			t.Errorf("status --json: %+v %v", parsed, err)
		}
		_, text := page(t, h, "/metrics")
		for _, part := range []string{"flannel_packets_total{backend=\"vxlan\",direction=\"sent\"", `flannel_rpc_duration_seconds_count{call="NetworkDriver.Join",outcome="ok"}`, `flannel_store_request_duration_seconds_count{operation="claim"}`} {
			contains(t, "metrics", text, part)
		}
		if strings.Contains(text, `flannel_packets_total{backend="vxlan",direction="sent",network=""} 0`+"\n") {
			t.Error("a ping across hosts, and no packet was sent")
		}
		answers(t, h, "/healthz", 200, "ok")
		answers(t, h, "/readyz", 200, "ok")
		answers(t, h, "/", 200, "<!doctype html>")
		answers(t, h, "/status.json", 200, `"Subnet":"`+other+`.0/24","PublicIP":"`+s.hosts[1-i].Addr().String()+`"`)
	}
}

// leave gives back what a host does not use, and nothing else.
func (s *scene) leave(t *testing.T, h *netlab.Host) {
	key := prefix + "/subnets/"
	contains(t, "leave with nothing", flannel(t, h, 0, "leave"), "holds no lease")
	docker(t, h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", network)
	id := docker(t, h, "network", "inspect", "-f", "{{.Id}}", network)
	remove := "docker network rm " + id[:12]
	contains(t, "leave while the network stands", flannel(t, h, 1, "leave"), remove)
	if held := s.ctl(t, "get", "--prefix", "--keys-only", key); held == "" {
		t.Error("the lease is gone although leave was refused")
	}
	contains(t, "network rm", flannel(t, h, 1, "network", "rm", "default"), "host "+h.Addr().String())
	sh(t, h, remove)
	wait(t, "the lease's end", func() error {
		if held := s.ctl(t, "get", "--prefix", "--keys-only", key); held != "" {
			return fmt.Errorf("leases after the network was removed: %s", held)
		}
		return nil
	})
	// One that an earlier life of this host has left, and a reservation.
	value := fmt.Sprintf(`{"PublicIP":"%s","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:07"}}`, h.Addr())
	lease := strings.Fields(s.ctl(t, "lease", "grant", "600"))[1]
	s.ctl(t, "put", "--lease="+lease, key+"10.5.99.0-24", value)
	s.ctl(t, "put", key+"10.5.98.0-24", value)
	contains(t, "leave", flannel(t, h, 0, "leave"), "10.5.99.0/24 of the default network is given back", "10.5.98.0/24 of the default network stays")
	if held := s.ctl(t, "get", "--prefix", "--keys-only", key); strings.TrimSpace(held) != key+"10.5.98.0-24" {
		t.Errorf("leases after leave: %s", held)
	}
	s.ctl(t, "del", key+"10.5.98.0-24")
	flannel(t, h, 0, "network", "rm", "default")
	contains(t, "network create", flannel(t, h, 0, "network", "create", "blue", "--subnet", "10.77.0.0/16"), "10.77.0.0/16", "--ipam-opt network=blue")
	contains(t, "network create again", flannel(t, h, 1, "network", "create", "blue"), "exists already")
	contains(t, "network ls", flannel(t, h, 0, "network", "ls"), "blue", "10.77.0.0/16")
	flannel(t, h, 0, "network", "rm", "blue")
	if left := strings.TrimSpace(s.ctl(t, "get", "--prefix", "--keys-only", prefix)); strings.Contains(left, "config") {
		t.Errorf("after network rm: %s", left)
	}
}

// etcdAway is said, and is no reason to be not ready.
func (s *scene) etcdAway(t *testing.T, h *netlab.Host) {
	if err := s.etcd.Kill(); err != nil {
		t.Fatal(err)
	}
	shows(t, h, "flannel_store_connected 0", "flannel_ready 1")
	answers(t, h, "/readyz", 200, "note: etcd ("+s.etcd.Endpoint+") does not answer")
	answers(t, h, "/healthz", 200, "ok")
	contains(t, "status", flannel(t, h, 0, "status"), "does not answer since", "new networks and other hosts' changes wait")
	contains(t, "leases", flannel(t, h, 1, "leases"), s.etcd.Endpoint)
	docker(t, h, "run", "--rm", "--network", network, "busybox", "true")
	if err := s.etcd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	shows(t, h, "flannel_store_connected 1", `flannel_lease_held{network=""} 1`)
	wait(t, "all is well", func() error {
		if out, code := tryFlannel(t, h, "status"); code != 0 || !strings.Contains(out, "all is well") {
			return errors.New(out)
		}
		return nil
	})
}

// alarm is another host's hand on the subnet that containers use.
func (s *scene) alarm(t *testing.T, h *netlab.Host) {
	key := prefix + "/subnets/" + head(s.addrs[0]) + ".0-24"
	shows(t, h, `flannel_lease_conflict{network=""} 0`)
	s.ctl(t, "put", key, `{"PublicIP":"192.0.2.200","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:c8"}}`)
	shows(t, h, `flannel_lease_conflict{network=""} 1`, `flannel_ready 0`, `flannel_lease_held{network=""} 0`)
	answers(t, h, "/readyz", 503, "not ok: ALARM")
	answers(t, h, "/healthz", 200, "ok")
	out := flannel(t, h, 1, "status")
	t.Log("\n" + out)
	contains(t, "status", out, "TAKEN by 192.0.2.200", "ALARM", "docker network rm ")
	s.ctl(t, "del", key)
	shows(t, h, `flannel_lease_conflict{network=""} 0`, `flannel_ready 1`)
	wait(t, "the end of the alarm", func() error {
		if out, code := tryFlannel(t, h, "status"); code != 0 {
			return fmt.Errorf("exit code %d: %s", code, out)
		}
		return nil
	})
}
