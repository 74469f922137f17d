//go:build lab

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

const (
	pluginDir  = "../../build/plugin"
	pluginName = "docker-flannel"
	cidr       = "10.5.0.0/16"
	network    = "blue"
)

// engines are the versions that every test on engines covers, one a host.
var engines = []string{"20.10", "28.5"}

// cluster is the two hosts that most tests share. The first runs the embedded
// etcd.
var cluster struct {
	lab   *netlab.Lab
	hosts []*netlab.Host
	all   []*netlab.Host // with an engine, of every test
}

func TestMain(m *testing.M) {
	play()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if _, err := os.Stat(filepath.Join(pluginDir, "rootfs", "flannel")); err != nil {
		return 1, fmt.Errorf("%w; run: make plugin", err)
	}
	dir := os.Getenv("LAB_DIR")
	lab, err := netlab.New(dir, os.Stderr)
	if err != nil {
		return 1, err
	}
	defer func() {
		if closed := lab.Close(); closed != nil && err == nil {
			code, err = 1, closed
		}
	}()
	cluster.lab = lab
	if cluster.hosts, err = startHosts(lab, "host", engines); err != nil {
		return 1, err
	}
	code = m.Run()
	if err = healthy(cluster.all); err != nil || code != 0 {
		keepLogs(cluster.all)
	}
	return code, err
}

// startHosts starts one host an engine, all at once, with the image and the
// plugin's files on each.
func startHosts(lab *netlab.Lab, name string, versions []string) ([]*netlab.Host, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	hosts := make([]*netlab.Host, len(versions))
	errs := make([]error, len(versions))
	for i, version := range versions {
		host, err := lab.AddHost(netlab.HostSpec{Name: fmt.Sprintf("%s%d", name, i+1), Engine: version})
		if err != nil {
			return nil, err
		}
		hosts[i] = host
	}
	cluster.all = append(cluster.all, hosts...)
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() { errs[i] = prepare(ctx, h) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return hosts, nil
}

func prepare(ctx context.Context, h *netlab.Host) error {
	if err := h.StartEngine(ctx); err != nil {
		return err
	}
	if err := h.LoadImage(ctx); err != nil {
		return err
	}
	if err := equip(ctx, h); err != nil {
		return err
	}
	return h.CopyIn(ctx, pluginDir, "/plugin")
}

// keepLogs copies the engines' logs, which hold the plugin's too, to where
// they outlive the lab.
func keepLogs(hosts []*netlab.Host) {
	dir, err := os.MkdirTemp("", "docker-flannel-logs-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: keep logs:", err)
		return
	}
	for _, h := range hosts {
		text, err := os.ReadFile(h.EngineLog())
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, h.Name()+".log"), text, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e: keep logs:", err)
		}
	}
	fmt.Fprintln(os.Stderr, "e2e: the engines' logs are in", dir)
}

// docker runs a docker command on a host; the command must succeed.
func docker(t testing.TB, h *netlab.Host, args ...string) string {
	t.Helper()
	out, err := h.Docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try runs a docker command for its error.
func try(t testing.TB, h *netlab.Host, args ...string) error {
	t.Helper()
	_, err := h.Docker(t.Context(), args...)
	return err
}

// sh runs a shell command on a host outside any container.
func sh(t testing.TB, h *netlab.Host, command string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), "sh", "-c", command)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// undo runs a docker command when the test ends, in a context of its own.
func undo(t testing.TB, h *netlab.Host, args ...string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := h.Docker(ctx, args...); err != nil {
			t.Error(err)
		}
	})
}

// install puts the plugin on the hosts for the length of a test; the first
// runs the embedded etcd. Settings are given to all.
func install(t testing.TB, hosts []*netlab.Host, settings ...string) {
	t.Helper()
	for i, h := range hosts {
		url := fmt.Sprintf("http://%s:2379", hosts[0].Addr())
		etcd := "ETCD_ENDPOINTS=" + url
		if i == 0 {
			etcd = "ETCD_LISTEN=" + url
		}
		installWith(t, h, append([]string{etcd}, settings...)...)
	}
}

// awaitEtcd waits until the embedded etcd of a host answers, and returns where.
func awaitEtcd(t testing.TB, h *netlab.Host) (endpoint string) {
	t.Helper()
	endpoint = fmt.Sprintf("http://%s:2379", h.Addr())
	wait(t, "etcd on "+h.Name(), func() error {
		_, err := cluster.lab.Etcdctl(t.Context(), endpoint, "get", prefix)
		return err
	})
	return endpoint
}

// installWith puts the plugin on a host for the length of a test.
func installWith(t testing.TB, h *netlab.Host, settings ...string) {
	t.Helper()
	docker(t, h, "plugin", "create", pluginName, "/plugin")
	undo(t, h, "plugin", "rm", "-f", pluginName)
	docker(t, h, append([]string{"plugin", "set", pluginName}, settings...)...)
	docker(t, h, "plugin", "enable", pluginName)
}

// spare has hosts claim their subnets, and not the one that a test is to write a lease
// for: that is somebody's meanwhile.
func spare(t testing.TB, ctl func(t testing.TB, args ...string) string, claim func()) {
	t.Helper()
	key := prefix + "/subnets/" + spareSubnet + "-24"
	ctl(t, "put", key, `{"PublicIP":"192.0.2.250","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:fa"}}`)
	claim()
	ctl(t, "del", key)
}

// spareSubnet is of 24 bits.
const spareSubnet = "10.5.201.0"

// create makes the Docker network on the hosts for the length of a test.
func create(t testing.TB, hosts []*netlab.Host, options ...string) {
	t.Helper()
	for _, h := range hosts {
		args := append([]string{"network", "create", "-d", "flannel", "--ipam-driver", "flannel"}, options...)
		docker(t, h, append(args, network)...)
		undo(t, h, "network", "rm", network)
	}
}

// start runs a container in the background for the length of a test and
// returns its flannel address.
func start(t testing.TB, h *netlab.Host, name string, args ...string) string {
	t.Helper()
	docker(t, h, append([]string{"run", "-d", "--name", name, "--network", network}, args...)...)
	undo(t, h, "rm", "-f", name)
	return address(t, h, name)
}

// address is a container's address on the flannel network.
func address(t testing.TB, h *netlab.Host, name string) string {
	t.Helper()
	return docker(t, h, "inspect", "-f", `{{(index .NetworkSettings.Networks "`+network+`").IPAddress}}`, name)
}

// leases are the keys of the leases in the embedded etcd.
func leases(t testing.TB) []string {
	t.Helper()
	url := fmt.Sprintf("http://%s:2379", cluster.hosts[0].Addr())
	out, err := cluster.lab.Etcdctl(t.Context(), url, "get", "--prefix", "--keys-only", "/coreos.com/network/subnets/")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(out)
}

// leasesLeft waits until so many leases are left in the first host's etcd: a release
// that takes long, as on a slow disk, goes on after docker network rm has returned.
func leasesLeft(t testing.TB, want int) {
	t.Helper()
	wait(t, "the leases' end", func() error {
		if left := leases(t); len(left) != want {
			return fmt.Errorf("leases left: %v, want %d", left, want)
		}
		return nil
	})
}

// contains checks that a text has every part.
func contains(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %q:\n%s", what, part, text)
		}
	}
}
