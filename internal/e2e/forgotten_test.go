//go:build lab

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// TestForgotten removes a container, and later its network, while the plugin is
// disabled and hears nothing of it. What they held is taken back afterwards.
func TestForgotten(t *testing.T) {
	etcd, err := cluster.lab.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{hosts: cluster.hosts, etcd: etcd}
	t.Cleanup(func() { s.ctl(t, "del", "--prefix", prefix) })
	expectErrors(t, s.hosts, etcdAway, sweeps)
	t.Run("hosts", func(t *testing.T) {
		for _, h := range s.hosts {
			t.Run(h.Name(), func(t *testing.T) {
				t.Parallel()
				installWith(t, h, "ETCD_ENDPOINTS="+etcd.Endpoint)
				t.Cleanup(func() { forgetNetwork(h) })
				docker(t, h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", network)
				s.forgottenContainer(t, h)
				s.forgottenNetwork(t, h)
			})
		}
	})
}

// forgetNetwork takes away what a test that failed has left.
func forgetNetwork(h *netlab.Host) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, _ = h.Exec(ctx, "sh", "-c", "docker rm -f gone; docker network rm "+network) // gone where the test passed
}

func (s *scene) forgottenContainer(t *testing.T, h *netlab.Host) {
	docker(t, h, "run", "-d", "--name", "gone", "--network", network, "busybox", "sleep", "600")
	addr := address(t, h, "gone")
	endpoint := docker(t, h, "inspect", "-f", "{{.NetworkSettings.Networks."+network+".EndpointID}}", "gone")
	before := len(engineLog(t, h))
	unheard(t, h, "rm", "-f", "gone")
	if _, endpoints, err := engineBooks(t, h); err != nil || len(endpoints) > 0 {
		t.Fatalf("the engine knows %v: %v", endpoints, err)
	}
	have, err := readBooks(t, h)
	if err != nil || !slices.Equal(have.Addresses, []string{addr}) || len(have.Endpoints) != 1 {
		t.Errorf("before the sweep the books hold %v, want address %s: %v", have, addr, err)
	}
	account(t, h)
	logged(t, h, before,
		"an endpoint that the engine has forgotten was removed.*endpoint="+endpoint+" address="+addr,
		"an address that no container has is free again.*address="+addr)
}

func (s *scene) forgottenNetwork(t *testing.T, h *netlab.Host) {
	id := docker(t, h, "network", "inspect", "-f", "{{.Id}}", network)
	before := len(engineLog(t, h))
	unheard(t, h, "network", "rm", network)
	if lease, left := s.lease(t, h), traces(t, h); lease == "" || left == "" {
		t.Errorf("before the sweep there are the lease %q and %q", lease, left)
	}
	wait(t, "the network's removal", func() error {
		// The plugin's own socket stays.
		lease, left := s.lease(t, h), strings.ReplaceAll(traces(t, h), "flannel.sock", "")
		if lease != "" || left != "" {
			return fmt.Errorf("there are the lease %q and %q", lease, left)
		}
		return nil
	})
	logged(t, h, before, "a network that the engine has forgotten was removed.*network="+id)
	docker(t, h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", network)
	docker(t, h, "run", "--rm", "--network", network, "busybox", "true")
	docker(t, h, "network", "rm", network)
}

// lease is what etcd says of a host.
func (s *scene) lease(t *testing.T, h *netlab.Host) string {
	t.Helper()
	for line := range strings.SplitSeq(s.ctl(t, "get", "--prefix", prefix+"/subnets/"), "\n") {
		if strings.Contains(line, `"`+h.Addr().String()+`"`) {
			return line
		}
	}
	return ""
}

// unheard runs a docker command while the plugin is disabled. In its place every
// call is refused: the engine would try each for a quarter of a minute.
func unheard(t *testing.T, h *netlab.Host, args ...string) {
	t.Helper()
	docker(t, h, "plugin", "disable", "-f", pluginName)
	l, err := net.Listen("unix", legacySocket(h))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"Err":"disabled"}`, http.StatusInternalServerError)
		}),
	}
	go func() { _ = srv.Serve(l) }() // says that it was closed
	docker(t, h, args...)
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	docker(t, h, "plugin", "enable", pluginName)
}

// logged awaits a line in the log for every regular expression.
func logged(t *testing.T, h *netlab.Host, from int, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		wait(t, "a line in the log of "+h.Name(), func() error {
			if text := engineLog(t, h)[from:]; !regexp.MustCompile(p).MatchString(text) {
				return fmt.Errorf("it lacks %q:\n%s", p, text)
			}
			return nil
		})
	}
}
