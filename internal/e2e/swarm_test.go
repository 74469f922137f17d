//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// TestSwarm: a service on a flannel network of swarm scope, as docs/swarm.md
// tells, with one engine of each version. The second is the manager.
func TestSwarm(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	install(t, cluster.hosts)
	for _, h := range cluster.hosts {
		docker(t, h, "network", "create", "--config-only", "--ipam-driver", "flannel", "blue-here")
		undo(t, h, "network", "rm", "blue-here")
	}
	makeSwarm(t, two, one)
	err := try(t, two, "network", "create", "-d", "flannel", "--scope", "swarm", "--config-from", "blue-here", "legacy")
	if err == nil {
		t.Fatal("swarm takes the name flannel: docs/swarm.md says it does not")
	}
	contains(t, "the plain name", err.Error(), "legacy plugin flannel")
	err = try(t, two, "network", "create", "-d", "docker-flannel:latest", "--ipam-driver", "flannel", "--scope", "swarm", "bare")
	if err == nil {
		t.Fatal("swarm takes a network without --config-from: docs/swarm.md says it does not")
	}
	contains(t, "no --config-from", err.Error(), "legacy plugin flannel")
	docker(t, two, "network", "create", "-d", "docker-flannel:latest", "--scope", "swarm", "--attachable", "--config-from", "blue-here", network)
	undoWhenFree(t, two, "network", "rm", network)
	docker(t, two, "service", "create", "--quiet", "--name", "web", "--network", network, "--mode", "global",
		"--publish", "published=8081,target=80,mode=host",
		"busybox", "sh", "-c", "mkdir -p /www && hostname >/www/name && exec httpd -f -p 80 -h /www")
	undo(t, two, "service", "rm", "web")

	tasks := map[*netlab.Host]string{}
	for _, h := range cluster.hosts {
		wait(t, "the task on "+h.Name(), func() error {
			id, err := h.Docker(t.Context(), "ps", "-q", "-f", "label=com.docker.swarm.service.name=web")
			if err == nil && id == "" {
				err = errors.New("no task")
			}
			tasks[h] = id
			return err
		})
	}
	addrs := []string{address(t, one, tasks[one]), address(t, two, tasks[two])}
	if head(addrs[0]) == head(addrs[1]) {
		t.Errorf("tasks of two hosts have %v", addrs)
	}
	for _, h := range cluster.hosts {
		wait(t, "the service's name on "+h.Name(), func() error {
			out, err := h.Docker(t.Context(), "exec", tasks[h], "nslookup", "web")
			for _, a := range addrs {
				if err == nil && !strings.Contains(out, a+"\n") {
					err = fmt.Errorf("%s is not in %s", a, out)
				}
			}
			return err
		})
		for i, to := range cluster.hosts {
			name := docker(t, to, "exec", tasks[to], "hostname")
			if got := docker(t, h, "exec", tasks[h], "wget", "-q", "-O", "-", "http://"+addrs[i]+"/name"); got != name {
				t.Errorf("from %s to %s: %q, want %q", h.Name(), to.Name(), got, name)
			}
			contains(t, "mode=host port of "+to.Name(), get(t, h, fmt.Sprintf("http://%s:8081/name", to.Addr())), name)
		}
	}
	guest := docker(t, one, "run", "--rm", "--network", network, "busybox", "wget", "-q", "-O", "-", "http://"+addrs[1]+"/name")
	if want := docker(t, two, "exec", tasks[two], "hostname"); guest != want {
		t.Errorf("a container of no service gets %q, want %q", guest, want)
	}
	if keys := leases(t); len(keys) != 2 || !slices.ContainsFunc(keys, func(k string) bool { return strings.Contains(k, head(addrs[0])+".0-24") }) {
		t.Errorf("leases %v for tasks %v", keys, addrs)
	}
}

// makeSwarm joins the hosts to a swarm for the length of a test.
func makeSwarm(t *testing.T, manager *netlab.Host, workers ...*netlab.Host) {
	t.Helper()
	docker(t, manager, "swarm", "init", "--advertise-addr", manager.Addr().String())
	undo(t, manager, "swarm", "leave", "--force")
	token := docker(t, manager, "swarm", "join-token", "-q", "worker")
	for _, h := range workers {
		docker(t, h, "swarm", "join", "--token", token, manager.Addr().String()+":2377")
		undo(t, h, "swarm", "leave", "--force")
	}
}

// undoWhenFree runs a docker command when the test ends, until it succeeds: the
// tasks of a removed service end in their own time.
func undoWhenFree(t *testing.T, h *netlab.Host, args ...string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			_, err := h.Docker(ctx, args...)
			if err == nil {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Error(err)
				return
			}
		}
	})
}
