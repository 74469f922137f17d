//go:build lab

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// TestCompose: examples/compose on two hosts, as its first lines say, with a
// compose tool on either engine.
func TestCompose(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	install(t, cluster.hosts)
	for _, h := range cluster.hosts {
		bringCompose(t, h)
	}
	sh(t, one, "cd /shop && docker-compose --profile shop up -d --quiet-pull 2>&1")
	web := docker(t, one, "inspect", "-f", `{{.NetworkSettings.Networks.shop_blue.IPAddress}}`, "shop-web-1")
	serves := func(service, page string) func() error {
		return func() error { return try(t, one, "exec", "shop-"+service+"-1", "wget", "-q", "-O", "-", page) }
	}
	wait(t, "web to serve", serves("web", "http://"+web+"/stock"))
	wait(t, "the alias to lead to stock", serves("web", "http://warehouse/count"))
	if serves("web", "http://nobody/count")() == nil {
		t.Error("a name that nobody has leads somewhere")
	}
	sh(t, two, "cd /shop && WEB="+web+" docker-compose --profile till up -d --quiet-pull 2>&1")
	wait(t, "the till to have asked", func() error {
		if said, err := two.Docker(t.Context(), "logs", "shop-till-1"); err != nil || said != "42" {
			return fmt.Errorf("it says %q: %w", said, err)
		}
		return nil
	})
	contains(t, "the port on the other host", get(t, two, fmt.Sprintf("http://%s:8080/stock", one.Addr())), "42")
}

// TestComposeNamed: examples/compose/named.yaml, whose network exists already.
func TestComposeNamed(t *testing.T) {
	install(t, cluster.hosts)
	equipCLI(t, cluster.hosts[0])
	flannel(t, cluster.hosts[0], 0, "network", "create", "till", "--subnet", "10.200.0.0/16")
	drawers := map[*netlab.Host]string{}
	for _, h := range cluster.hosts {
		bringCompose(t, h)
		sh(t, h, "cd /shop && docker-compose -f named.yaml up -d --quiet-pull 2>&1")
		drawers[h] = docker(t, h, "inspect", "-f", `{{.NetworkSettings.Networks.named_till.IPAddress}}`, "named-drawer-1")
		contains(t, "drawer's address", drawers[h], "10.200.")
	}
	docker(t, cluster.hosts[0], "exec", "named-drawer-1", "ping", "-c", "3", "-i", "0.2", "-w", "10", drawers[cluster.hosts[1]])
}

// bringCompose puts the compose tool and the example on a host for the length
// of a test, and takes away what they made there.
func bringCompose(t *testing.T, h *netlab.Host) {
	t.Helper()
	tool, err := os.ReadFile(filepath.Join(cluster.lab.EngineRoot("28.5"), "usr/bin/docker-compose"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-compose"), tool, 0o755); err != nil {
		t.Fatal(err)
	}
	for src, dst := range map[string]string{dir: "/usr/local/bin", "../../examples/compose": "/shop"} {
		if err := h.CopyIn(t.Context(), src, dst); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if out, err := h.Exec(ctx, "sh", "-c", "cd /shop && docker-compose --profile shop --profile till down -t 0 2>&1 && docker-compose -f named.yaml down -t 0 2>&1"); err != nil {
			t.Error(out, err)
		}
	})
}
