//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
	"github.com/docker-flannel/docker-flannel/internal/report"
)

// finding is one verdict of the doctor, as its JSON has it.
type finding struct{ Check, Subject, State, Found, Why, Mend, On string }

func (f finding) String() string {
	return fmt.Sprintf("%s %s %s: %s; %s\n\t%s: %s", f.State, f.Check, f.Subject, f.Found, f.Why, f.On, f.Mend)
}

const tourist = "/plugin/rootfs/flannel"

// diagnose runs the doctor on a host, and checks its exit code.
func diagnose(t testing.TB, h *netlab.Host) []finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := h.Exec(ctx, tourist, "doctor", "--json")
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	var all []finding
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := 0
	for _, f := range sick(all) {
		want = max(want, 1)
		if f.Check == "plugin" {
			want = 3
		}
	}
	if code != want || len(all) < 20 {
		t.Errorf("%s: exit code %d, want %d, of %d verdicts", h.Name(), code, want, len(all))
	}
	return all
}

// sick are the failures among verdicts.
func sick(all []finding) (failed []finding) {
	for _, f := range all {
		if f.State == "fail" {
			failed = append(failed, f)
		}
	}
	return failed
}

// green waits until the doctor finds nothing on any host.
func green(t testing.TB, hosts []*netlab.Host) {
	t.Helper()
	wait(t, "health", func() error {
		for _, h := range hosts {
			if failed := sick(diagnose(t, h)); len(failed) > 0 {
				return fmt.Errorf("on %s: %v", h.Name(), failed)
			}
		}
		return nil
	})
}

// symptom is what the doctor must find on a host about a fault.
type symptom struct {
	host  int
	check string
	found string // part of it
	mend  string // part of the command; empty where it is another's symptom to mend
}

// fault is one stop of the tour.
type fault struct {
	name     string
	inject   func(t *testing.T)
	deaf     bool // containers do not hear each other at all
	symptoms []symptom
	restore  func(t *testing.T)
}

// find waits until the doctor of a host has found a symptom.
func find(t *testing.T, h *netlab.Host, s symptom) (found finding) {
	t.Helper()
	wait(t, fmt.Sprintf("the doctor's %q on %s", s.check, h.Name()), func() error {
		seen := sick(diagnose(t, h))
		for _, v := range seen {
			if v.Check == s.check && strings.Contains(v.Found, s.found) && strings.Contains(v.Mend, s.mend) {
				found = v
				return nil
			}
		}
		return fmt.Errorf("it found %v", seen)
	})
	t.Logf("%s: %s", h.Name(), found)
	return found
}

// obey runs the doctor's command where it says.
func (s *scene) obey(t *testing.T, h *netlab.Host, f finding) {
	t.Helper()
	if f.On != "" {
		h = s.hosts[slices.IndexFunc(s.hosts, func(o *netlab.Host) bool { return strings.Contains(f.On, o.Addr().String()) })]
	}
	t.Logf("%s# %s", h.Name(), f.Mend)
	if !strings.HasPrefix(f.Mend, "ethtool") {
		sh(t, h, f.Mend)
		return
	}
	// The hosts' root folders have no ethtool, so it is this machine's.
	out, err := exec.CommandContext(t.Context(), "nsenter", "--net=/run/netns/"+h.Netns(), "sh", "-c", f.Mend).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", f.Mend, err, out)
	}
}

// visit injects a fault, has it found and mended, and sees that all is well.
func (s *scene) visit(t *testing.T, f fault) {
	defer func() {
		if t.Failed() && f.restore != nil { // for the tests that follow
			f.restore(t)
		}
	}()
	f.inject(t)
	if f.deaf {
		s.deaf(t)
	}
	var mends []func()
	for _, symptom := range f.symptoms {
		h := s.hosts[symptom.host]
		found := find(t, h, symptom)
		if symptom.mend != "" {
			mends = append(mends, func() { s.obey(t, h, found) })
		}
	}
	for _, mend := range mends {
		mend()
	}
	s.well(t)
	if f.restore != nil {
		f.restore(t)
		s.well(t)
	}
}

// well waits until the doctor finds nothing, and until containers talk.
func (s *scene) well(t *testing.T) {
	t.Helper()
	green(t, s.hosts)
	for i, h := range s.hosts {
		act(t, h, echoes[i], "push", s.addrs[1-i])
	}
}

// deaf waits until the echo of a container on the first host does not come back.
func (s *scene) deaf(t *testing.T) {
	t.Helper()
	wait(t, "silence", func() error {
		if try(t, s.hosts[0], "exec", echoes[0], "ping", "-c", "1", "-W", "1", s.addrs[1]) == nil {
			return errors.New("containers hear each other, so this is no fault")
		}
		return nil
	})
}

// resetting changes settings of a host's plugin.
func resetting(h *netlab.Host, settings ...string) func(t *testing.T) {
	return func(t *testing.T) {
		docker(t, h, "plugin", "disable", "-f", pluginName)
		docker(t, h, append([]string{"plugin", "set", pluginName}, settings...)...)
		docker(t, h, "plugin", "enable", pluginName)
	}
}

// shell runs a command on a host, or on the wire.
func shell(h *netlab.Host, command string) func(t *testing.T) {
	return func(t *testing.T) { sh(t, h, command) }
}

// both do one thing after the other.
func both(steps ...func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) {
		for _, step := range steps {
			step(t)
		}
	}
}

// TestDoctor shows ten faults to the doctor, one after the other, and runs the
// very commands that it names.
func TestDoctor(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway, afterBoot, repairs, "lease not renewed", "kernel refuses")
	install(t, cluster.hosts)
	s := &scene{hosts: cluster.hosts}
	awaitEtcd(t, s.hosts[0])
	spare(t, s.embeddedCtl, func() { s.furnish(t) })
	s.well(t)
	for _, f := range s.faults() {
		if !t.Run(f.name, func(t *testing.T) { s.visit(t, f) }) {
			return // the next one would meet this one's remains
		}
	}
	t.Run("a host that is not gone", func(t *testing.T) {
		_, err := s.hosts[0].Exec(t.Context(), tourist, "doctor", "forget", head(s.addrs[1])+".0/24")
		if err == nil || !strings.Contains(err.Error(), "may live") {
			t.Errorf("its lease is deleted: %v", err)
		}
		s.well(t)
	})
	t.Run("bundle", func(t *testing.T) { s.bundle(t) })
	t.Run("pulse", func(t *testing.T) { s.pulse(t) })
}

// TestDoctorOfBackends finds nothing on hosts where all is well, and what is wrong
// where a setting is.
func TestDoctorOfBackends(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway, "the plugin cannot work")
	for _, backend := range []string{"udp", "host-gw"} {
		t.Run(backend, func(t *testing.T) {
			install(t, cluster.hosts, "BACKEND="+backend)
			s := &scene{hosts: cluster.hosts}
			s.furnish(t)
			s.well(t)
			if backend != "udp" {
				return
			}
			second := s.hosts[1]
			resetting(second, "MTU=17")(t)
			find(t, second, symptom{1, "problems", "MTU=17", "docker plugin set"})
			resetting(second, "MTU=0")(t)
			s.well(t)
		})
	}
}

// bundle writes the archive on each host.
func (s *scene) bundle(t *testing.T) {
	for _, h := range s.hosts {
		const file = "/tmp/flannel.tar.gz"
		contains(t, "the name", sh(t, h, tourist+" doctor bundle "+file), file)
		contains(t, "the archive", sh(t, h, "stat -c %a "+file+" && tar -tzf "+file), "600", "flannel/doctor.txt", "flannel/log.txt")
		contains(t, "the doctor's lines", sh(t, h, "tar -xzOf "+file+" flannel/doctor.txt"), "ok   plugin", "ok   tunnel")
		contains(t, "the log", sh(t, h, "tar -xzOf "+file+" flannel/log.txt"), "serving")
		contains(t, "the kernel", sh(t, h, "tar -xzOf "+file+" flannel/kernel.txt"), "flannel.1", "onlink", "forward in fl-")
		contains(t, "the keys", sh(t, h, "tar -xzOf "+file+" flannel/etcd.txt"), prefix+"/config", "PublicIP")
		sh(t, h, "rm "+file)
	}
}

// pulse waits for the round-trips that the plugins measure.
func (s *scene) pulse(t *testing.T) {
	for _, h := range s.hosts {
		wait(t, "the round-trip on "+h.Name(), func() error {
			var status report.Status
			out, err := h.Exec(t.Context(), tourist, "status", "--json")
			if err == nil {
				err = json.Unmarshal([]byte(out), &status)
			}
			if err != nil {
				return err
			}
			r := status.Networks[0].Peers[0].Reach
			if r == nil || r.RTT <= 0 || r.RTT > time.Second || r.Lost == r.Sent {
				return fmt.Errorf("it is %+v", r)
			}
			return nil
		})
	}
}

// faults are the stops of the tour.
func (s *scene) faults() []fault {
	one, two, wire := s.hosts[0], s.hosts[1], cluster.lab.Wire()
	const (
		enabling = "docker plugin enable docker-flannel"
		reset    = "docker plugin set docker-flannel PUBLIC_IP="
		input    = "nft 'table inet fw { chain in1 { type filter hook input priority 10; udp dport 8000-9000 counter drop; }; }'"
	)
	disable := func(t *testing.T, h *netlab.Host) { docker(t, h, "plugin", "disable", "-f", pluginName) }
	faults := []fault{
		{"port blocked", shell(two, "iptables -I INPUT -p udp --dport 8472 -j DROP"), true, []symptom{
			{1, "firewall", "INPUT", "iptables-nft -I INPUT -p udp --dport 8472 -j ACCEPT"},
			{0, "tunnel", "nothing comes through UDP port 8472", ""},
		}, shell(two, "iptables -D INPUT -p udp --dport 8472 -j ACCEPT; iptables -D INPUT -p udp --dport 8472 -j DROP")},
		{"port blocked, by nftables", shell(one, input), true, []symptom{
			{0, "firewall", "table inet fw", "nft insert rule inet fw in1 udp dport 8472 accept"},
			{1, "tunnel", "nothing comes through UDP port 8472", ""},
		}, shell(one, "nft delete table inet fw")},
		{"port blocked, by the legacy iptables", shell(two, "iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -i lo -j ACCEPT; iptables-legacy -A INPUT -p tcp -j ACCEPT; iptables-legacy -A INPUT -p icmp -j ACCEPT; iptables-legacy -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"), true, []symptom{
			{1, "firewall", "chain INPUT of the legacy iptables' table filter (policy drop)", "iptables-legacy -I INPUT -p udp --dport 8472 -j ACCEPT"},
			{0, "tunnel", "nothing comes through UDP port 8472", ""},
		}, shell(two, "iptables-legacy -P INPUT ACCEPT; iptables-legacy -F INPUT")},
		{"MTU lowered on the path", shell(wire, "ip link set "+two.Name()+" mtu 1400"), false, []symptom{
			{0, "mtu", "1400 bytes pass, 1500 are needed", "ip link set eth0 mtu 1400"},
			{1, "mtu", "bytes pass, 1500 are needed", "ip link set eth0 mtu 140"}, // a veth lets a VLAN tag's 4 bytes more in
		}, both(shell(wire, "ip link set "+two.Name()+" mtu 1500"), shell(one, "ip link set eth0 mtu 1500"), shell(two, "ip link set eth0 mtu 1500"))},
		{"device deleted while the plugin is stopped", func(t *testing.T) {
			disable(t, two)
			sh(t, two, "ip link del flannel.1")
		}, true, []symptom{
			{1, "devices", "add link flannel.1", enabling},
			{0, "tunnel", "refuses UDP port 8472", ""},
		}, nil},
		{"wrong PublicIP", resetting(two, "PUBLIC_IP=203.0.113.9", "IFACE=eth0"), true, []symptom{
			{1, "publicip", "on no interface of this host", reset},
			{0, "peer", "yet renewed its lease", ""},
		}, nil},
		{"etcd down", func(t *testing.T) { disable(t, one) }, false, []symptom{{1, "etcd", "connection refused", enabling}}, nil},
		{"checksum fault", func(t *testing.T) { blind(t, one) }, false, []symptom{{0, "checksum", "only without a checksum", "ethtool -K flannel.1 tx off"}}, func(t *testing.T) { sighted(t, one) }},
		{"host gone", func(t *testing.T) { s.bequeath(t, "192.0.2.99") }, false, []symptom{
			{0, "peer", "has not renewed its lease", "doctor forget " + spareSubnet + "/24"},
		}, nil},
		{"duplicate PublicIP", resetting(two, "PUBLIC_IP="+one.Addr().String(), "IFACE=eth0"), true, []symptom{
			{1, "duplicate", "PublicIP of both", reset},
			{0, "duplicate", "PublicIP of both", ""},
		}, nil},
	}
	for i, h := range s.hosts {
		faults = append(faults, s.forwardFaults(i, h)...)
	}
	return faults
}

// forwardFaults are those of what is routed, which the engines differ in.
func (s *scene) forwardFaults(i int, h *netlab.Host) []fault {
	const forward = "nft 'table inet fw { chain routed { type filter hook forward priority 10; policy drop; }; }'"
	return []fault{
		{"FORWARD drop, " + h.Name(), shell(h, forward), true, []symptom{
			{i, "forward", "policy drop", "nft insert rule inet fw routed"},
		}, shell(h, "nft delete table inet fw")},
		{"legacy rules, " + h.Name(), shell(h, "iptables-legacy -P FORWARD DROP"), true, []symptom{
			{i, "legacy", "drops forwarded packets", "iptables-legacy -I FORWARD"},
		}, shell(h, "iptables-legacy -P FORWARD ACCEPT; iptables-legacy -F FORWARD")},
	}
}

// goneTTL is the time to live of a lease that nobody renews, in seconds: a
// plugin renews after a third of it.
const goneTTL = 48

// embeddedCtl runs etcdctl on the first host's etcd.
func (s *scene) embeddedCtl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := cluster.lab.Etcdctl(t.Context(), fmt.Sprintf("http://%s:2379", s.hosts[0].Addr()), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// bequeath makes the lease of a host that is no more.
func (s *scene) bequeath(t *testing.T, host string) {
	t.Helper()
	id := strings.Fields(s.embeddedCtl(t, "lease", "grant", fmt.Sprint(goneTTL)))[1]
	value := fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:63"}}`, host)
	s.embeddedCtl(t, "put", "--lease="+id, prefix+"/subnets/"+spareSubnet+"-24", value)
}
