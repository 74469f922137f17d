//go:build lab

package kernel

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// host is one network namespace with an underlay eth0 (10.0.0.1/24), whose
// other end wire0 is in the same namespace, and a Kernel.
type host struct {
	testing.TB
	k *Kernel
}

// newHost puts the test's goroutine on a thread of its own in a new network
// namespace; both go with the goroutine.
func newHost(t testing.TB) *host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("lab tests need root")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare: %v", err)
	}
	h := &host{TB: t}
	h.sh("sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0") // it has the machine's
	h.sh("ip link set lo up")
	h.sh("ip link add eth0 mtu 1500 type veth peer name wire0")
	h.sh("ip addr add 10.0.0.1/24 dev eth0")
	h.sh("ip link set wire0 up")
	h.sh("ip link set eth0 up")
	h.sh("ip route add default via 10.0.0.254")
	k, err := Open(Options{Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	h.k = k
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// sh runs a command in the namespace and returns what it prints.
func (h *host) sh(command string) string {
	h.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		h.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// apply applies want, which must not fail.
func (h *host) apply(want State) Result {
	h.Helper()
	result := h.k.Apply(context.Background(), want)
	for _, f := range result.Failed {
		h.Errorf("apply: %v", f)
	}
	if h.Failed() {
		h.FailNow()
	}
	return result
}

// read reads everything anew, past all that the Kernel knows, as golden text.
func (h *host) read(want State) string {
	h.Helper()
	v, err := h.k.readNet(want)
	if err != nil {
		h.Fatal(err)
	}
	v.wall = h.k.readWall()
	if v.wallErr != nil {
		h.Fatal(v.wallErr)
	}
	return v.state().String() + strings.TrimPrefix(v.table, chainText+"\n")
}

// expect fails unless the kernel is exactly as wanted.
func (h *host) expect(want State) {
	h.Helper()
	if got := h.read(want); got != settled(want).String() {
		h.Fatalf("the kernel has\n%s\nwant\n%s", got, settled(want))
	}
}

// settled is a state whose pairs have all been made.
func settled(s State) State {
	veths := make([]Veth, len(s.Veths))
	for i, v := range s.Veths {
		v.Create = false
		veths[i] = v
	}
	s.Veths = veths
	return s
}

// watch runs Watch until the test ends. The channel gets a value for each
// wake; the first, that of the start, has been taken.
func (h *host) watch() <-chan struct{} {
	h.Helper()
	woken := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.k.Watch(ctx, func() { woken <- struct{}{} }) }()
	h.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.Errorf("watch: %v", err)
		}
	})
	h.await(woken)
	return woken
}

// patience is how long a test waits for what a kernel at rest does at once. Of
// namespaces that have died it clears one after the other.
const patience = time.Minute

// notice runs a command and waits until Watch has woken, and compared all that
// the command caused: of several changes the first alone may wake it.
func (h *host) notice(woken <-chan struct{}, command string) {
	h.Helper()
	for len(woken) > 0 { // by what was put right since
		<-woken
	}
	h.sh(command)
	h.await(woken)
	h.compared()
}

// await waits for a wake.
func (h *host) await(woken <-chan struct{}) {
	h.Helper()
	select {
	case <-woken:
	case <-time.After(patience):
		h.Fatalf("not woken within %s", patience)
	}
}

// quiet fails if Watch has found a reason for doubt since the last Apply. It
// returns after everything that Apply caused has been compared.
func (h *host) quiet() {
	h.Helper()
	h.compared()
	if doubt := h.k.doubt.Load(); doubt != 0 {
		h.Fatalf("doubt %b", doubt)
	}
}

// compared waits until Watch has compared everything that has happened.
func (h *host) compared() {
	h.Helper()
	h.k.mu.Lock()
	h.k.touched["compared"] = true
	h.k.mu.Unlock()
	h.until("notifications are compared", func() bool {
		h.k.rouse() // as Apply does when it lets the lock go
		h.k.mu.Lock()
		defer h.k.mu.Unlock()
		return !h.k.touched["compared"]
	})
}

// until polls a condition.
func (h *host) until(what string, ok func() bool) {
	h.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			h.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// namespace makes a second network namespace, held by a process of its own,
// and returns that process's id.
func (h *host) namespace() int {
	h.Helper()
	c := exec.Command("unshare", "--net", "sleep", "3600")
	if err := c.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	own, err := os.Readlink(threadNS)
	if err != nil {
		h.Fatal(err)
	}
	h.until("the namespace exists", func() bool {
		other, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid))
		return err == nil && other != own
	})
	return c.Process.Pid
}

// peers gives the entries of n peers behind flannel.1.
func peers(n int) (neighs []Neigh, fdb []FDB, routes []Route) {
	for i := range n {
		subnet := netip.AddrFrom4([4]byte{10, byte(8 + i>>8), byte(i), 0})
		mac := MAC{2, 0x42, 10, byte(8 + i>>8), byte(i), 0}
		neighs = append(neighs, Neigh{"flannel.1", subnet, mac})
		fdb = append(fdb, FDB{"flannel.1", mac, netip.AddrFrom4([4]byte{10, 0, byte(1 + i>>8), byte(i)})})
		routes = append(routes, Route{Dst: netip.PrefixFrom(subnet, 24), Via: subnet, Link: "flannel.1", OnLink: true})
	}
	return neighs, fdb, routes
}

// example is a host with one vxlan network, n peers and one container.
func example(n int) State {
	s := State{
		Sysctls: []Sysctl{
			{"ipv4/ip_forward", "1"},
			{"ipv6/conf/fl-blue/disable_ipv6", "1"},
			{"ipv6/conf/flannel.1/disable_ipv6", "1"},
		},
		Links: []Link{
			{Name: "fl-blue", MAC: MAC{2, 0x42, 10, 5, 7, 1}, MTU: 1450},
			{Name: "flannel.1", MAC: MAC{2, 0x42, 10, 5, 7, 0}, MTU: 1450, VXLAN: VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr("10.0.0.1"), Dev: "eth0"}},
		},
		Veths: []Veth{{Name: "flv1", Peer: "flp1", Master: "fl-blue", MAC: MAC{2, 0x42, 10, 5, 7, 2}, MTU: 1450, Create: true}},
		Addrs: []Addr{
			{"fl-blue", netip.MustParsePrefix("10.5.7.1/24")},
			{"flannel.1", netip.MustParsePrefix("10.5.7.0/32")},
		},
		Forwards: []Forward{
			{In: "fl-blue", Out: "fl-blue"},
			{In: "fl-blue", Out: "flannel.1", Src: netip.MustParsePrefix("10.5.0.0/16"), Dst: netip.MustParsePrefix("10.5.0.0/16")},
			{In: "flannel.1", Out: "fl-blue", Src: netip.MustParsePrefix("10.5.0.0/16")},
		},
		Guards: []string{"fl-blue"},
		Closed: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")},
		Seals:  []Seal{{In: "docker", Out: "eth0", Port: 8472}},
		Doors:  []Door{{8472, 1}},
	}
	s.Neighs, s.FDB, s.Routes = peers(n)
	for _, f := range s.FDB {
		s.Admits = append(s.Admits, Admit{s.Doors[0], f.Dst})
	}
	return s
}

// threadID names this thread, and so its namespace, to other processes.
func threadID() int { return unix.Gettid() }
