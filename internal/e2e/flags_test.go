//go:build lab

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// TestFlags takes Docker's flags one by one, on both engines.
func TestFlags(t *testing.T) {
	install(t, cluster.hosts)
	for _, h := range cluster.hosts {
		t.Run(h.Name(), func(t *testing.T) {
			t.Run("gateway=docker", func(t *testing.T) { checkRunFlags(t, h) })
			t.Run("gateway=flannel", func(t *testing.T) { checkRunFlags(t, h, "-o", "gateway=flannel") })
			t.Run("network create", func(t *testing.T) { checkCreateFlags(t, h) })
		})
	}
}

// checkCreateFlags makes networks and reads refusals.
func checkCreateFlags(t *testing.T, h *netlab.Host) {
	makes := func(args ...string) error {
		return try(t, h, append(append([]string{"network", "create", "-d", "flannel", "--ipam-driver", "flannel"}, args...), network)...)
	}
	if err := makes("--subnet", cidr); err != nil {
		t.Fatal(err)
	}
	base := head(sh(t, h, "ip -o -4 addr | sed -n 's/.* fl-[^ ]* *inet \\([^/]*\\).*/\\1/p'"))
	mine := base + ".0/24"
	docker(t, h, "network", "rm", network)
	for _, c := range []struct {
		args []string
		says string // empty for what is accepted
	}{
		{[]string{"--subnet", mine}, ""},
		{[]string{"--subnet", mine, "--gateway", base + ".1"}, ""},
		{[]string{"--subnet", cidr, "--gateway", base + ".1"}, ""},
		{[]string{"--subnet", mine, "--gateway", base + ".9"}, base + ".1"},
		{[]string{"--subnet", cidr, "--ip-range", mine}, "--ip-range " + mine},
		{[]string{"--subnet", mine, "--aux-address", "router=" + base + ".5"}, ""},
		{[]string{"--subnet", cidr, "--aux-address", "router=192.0.2.77"}, "192.0.2.77"},
		{[]string{"--subnet", cidr, "--gateway", "192.0.2.77"}, "192.0.2.77"},
		{[]string{"--attachable"}, ""},
		{[]string{"--label", "a=b", "--internal"}, ""},
		{[]string{"-o", "com.docker.network.driver.mtu=1300"}, ""},
		{[]string{"-o", "com.docker.network.driver.mtu=9"}, "68"},
		{[]string{"-o", "com.docker.network.bridge.name=br9"}, "gateway=docker|flannel"},
		{[]string{"-o", "gateway=host"}, "gateway=host"},
		{[]string{"-o", "ip-masq=false"}, "-o gateway=flannel"},
		{[]string{"-o", "gateway=flannel", "-o", "ip-masq=no"}, "true or false"},
		{[]string{"--ipv6"}, "--ipv6"},
		{[]string{"--scope", "swarm"}, "swarm is not active"},
		{[]string{"--ingress"}, "Ingress"},
		{[]string{"--subnet", cidr, "--subnet", "10.9.0.0/16"}, "10.9.0.0/16"},
		// The engine itself refuses these, and does not give the subnet back: it
		// is not handed out again for 12 s.
		{[]string{"--subnet", cidr, "--aux-address", "router=10.5.0.5"}, mine},
	} {
		err := makes(c.args...)
		what := strings.Join(c.args, " ")
		switch {
		case err == nil && c.says != "":
			t.Errorf("%s: not refused", what)
		case err != nil && c.says == "":
			t.Errorf("%s: %v", what, err)
		case err != nil:
			t.Logf("%s: %v", what, err)
			contains(t, what, err.Error(), c.says)
		}
		if err == nil {
			docker(t, h, "network", "rm", network)
		}
	}
}

// checkRunFlags plugs containers in every way that Docker knows.
func checkRunFlags(t *testing.T, h *netlab.Host, options ...string) {
	create(t, []*netlab.Host{h}, append([]string{"--subnet", cidr, "--attachable", "-o", "com.docker.network.driver.mtu=1300"}, options...)...)
	docker(t, h, "network", "create", "other")
	undo(t, h, "network", "rm", "other")
	first := start(t, h, "first", "--network-alias", "nick", "--hostname", "myself", "busybox", "sleep", "600")
	want := head(first) + ".77"
	got := start(t, h, "second", "--ip", want, "--mac-address", "02:42:00:00:77:77", "--link", "first:linked", "busybox", "sleep", "600")
	if got != want {
		t.Errorf("--ip %s gives %s", want, got)
	}
	contains(t, "--mac-address", docker(t, h, "exec", "second", "cat", "/sys/class/net/eth0/address"), "02:42:00:00:77:77")
	contains(t, "the MTU", docker(t, h, "exec", "second", "cat", "/sys/class/net/eth0/mtu"), "1300")
	for _, name := range []string{"first", "nick", "linked"} {
		docker(t, h, "exec", "second", "ping", "-c", "1", "-W", "5", name)
	}
	// 28.5 writes a mapped address there: "::ffff:10.5.7.2".
	contains(t, "--hostname in /etc/hosts", docker(t, h, "exec", "first", "cat", "/etc/hosts"), first+"\tmyself")

	// Into a running container and out of it, beside a bridge network.
	docker(t, h, "run", "-d", "--name", "third", "--network", "other", "-p", "8085:7008", "busybox", "sleep", "600")
	undo(t, h, "rm", "-f", "third")
	serve(t, h, "third", "witness")
	probe := func(what string, passes bool) {
		t.Helper()
		err := try(t, h, "exec", "third", "ping", "-c", "1", "-W", map[bool]string{true: "5", false: "1"}[passes], first)
		if passes != (err == nil) {
			t.Errorf("%s: %v", what, err)
		}
	}
	probe("before it is connected", false)
	docker(t, h, "network", "connect", "--alias", "late", "--ip", head(first)+".78", network, "third")
	probe("connected", true)
	docker(t, h, "exec", "first", "ping", "-c", "1", "-W", "5", "late")
	docker(t, h, "exec", "third", "ping", "-c", "1", "-W", "5", netlab.Outside)
	wait(t, "the published port while on two networks", func() error { _, err := asks(cluster.lab.Wire(), "tcp", at(h, 8085)); return err })
	docker(t, h, "network", "disconnect", network, "third")
	probe("disconnected", false)
	docker(t, h, "exec", "third", "ping", "-c", "1", "-W", "5", netlab.Outside)
	wait(t, "the published port while on one network", func() error { _, err := asks(cluster.lab.Wire(), "tcp", at(h, 8085)); return err })

	// From flannel's network into a bridge network, and back.
	docker(t, h, "run", "-d", "--name", "fourth", "--network", network, "-p", "8086:7008", "busybox", "sleep", "600")
	undo(t, h, "rm", "-f", "fourth")
	serve(t, h, "fourth", "witness")
	for _, args := range [][]string{{"connect", "other"}, {"disconnect", "other"}, {"connect", "other"}, {"disconnect", network}, {"connect", network}} {
		docker(t, h, "network", args[0], args[1], "fourth")
		what := fmt.Sprintf("the published port after network %s", strings.Join(args, " "))
		wait(t, what, func() error { _, err := asks(cluster.lab.Wire(), "tcp", at(h, 8086)); return err })
		docker(t, h, "exec", "fourth", "ping", "-c", "1", "-W", "5", netlab.Outside)
	}
	docker(t, h, "exec", "fourth", "ping", "-c", "1", "-W", "5", first)
}
