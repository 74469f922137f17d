// Command demo shows the plugin at work on two real Docker hosts, each in
// namespaces of its own on this machine. It prints every command as a person
// would type it, takes everything away when it ends, and ends non-zero when
// anything did not work. It needs root, scripts/lab-setup and build/plugin.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

const (
	pluginDir = "build/plugin"
	limit     = 5 * time.Minute
)

func main() {
	begin := time.Now()
	if err := demo(); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("\nEverything above worked, in %s. Nothing is left behind.\n", time.Since(begin).Round(time.Second))
}

func demo() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err := os.Stat(pluginDir + "/rootfs/flannel"); err != nil {
		return fmt.Errorf("%w; run: make plugin", err)
	}
	lab, err := netlab.New("", os.Stderr)
	if err != nil {
		return err
	}
	defer func() {
		say("Taking the hosts away")
		err = errors.Join(err, lab.Close())
	}()
	s := &stage{ctx: ctx, lab: lab}
	for _, scene := range []func(){s.hosts, s.plugin, s.network, s.containers, s.ports, s.leases, s.away} {
		scene()
		if s.err != nil {
			return s.err
		}
	}
	return nil
}

// stage runs commands and shows them. After the first error it runs nothing
// more.
type stage struct {
	ctx      context.Context
	lab      *netlab.Lab
	one, two *netlab.Host
	err      error
}

func say(text string) { fmt.Printf("\n== %s\n", text) }

// hosts starts two machines with different engines.
func (s *stage) hosts() {
	say("Two hosts on one wire, each with a Docker engine of its own")
	s.one, s.two = s.host("host1", "20.10"), s.host("host2", "28.5")
	if s.err != nil {
		return
	}
	var wg sync.WaitGroup
	var errs [2]error
	for i, h := range []*netlab.Host{s.one, s.two} {
		wg.Go(func() {
			errs[i] = errors.Join(h.StartEngine(s.ctx), h.LoadImage(s.ctx), h.CopyIn(s.ctx, pluginDir, "/root/plugin"))
		})
	}
	wg.Wait()
	if s.err = errors.Join(errs[:]...); s.err != nil {
		return
	}
	for _, h := range []*netlab.Host{s.one, s.two} {
		s.docker(h, "version", "--format", "Docker {{.Server.Version}}")
		s.run(h, "ip", "-brief", "-4", "address", "show", "eth0")
	}
}

func (s *stage) host(name, engine string) *netlab.Host {
	if s.err != nil {
		return nil
	}
	h, err := s.lab.AddHost(netlab.HostSpec{Name: name, Engine: engine})
	s.err = err
	return h
}

// plugin installs it on both, with the embedded etcd on the first.
func (s *stage) plugin() {
	say("The plugin on both; the first runs the etcd that both use")
	url := "http://" + s.one.Addr().String() + ":2379"
	for _, h := range []*netlab.Host{s.one, s.two} {
		setting := "ETCD_ENDPOINTS=" + url
		if h == s.one {
			setting = "ETCD_LISTEN=" + url
		}
		s.docker(h, "plugin", "create", "docker-flannel", "/root/plugin")
		s.docker(h, "plugin", "set", "docker-flannel", setting)
		s.docker(h, "plugin", "enable", "docker-flannel")
	}
}

func (s *stage) network() {
	say("The network on both: each host claims a subnet of 10.5.0.0/16")
	for _, h := range []*netlab.Host{s.one, s.two} {
		s.docker(h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", "blue")
		s.docker(h, "network", "inspect", "-f", "{{range .IPAM.Config}}subnet {{.Subnet}}, gateway {{.Gateway}}{{end}}", "blue")
	}
	s.run(s.two, "ip", "route")
}

const server = `mkdir /www; echo "hello from $(hostname)" >/www/index.html; exec httpd -f -p 80 -h /www`

func (s *stage) containers() {
	say("Containers that talk by IP, from host to host")
	s.docker(s.one, "run", "-d", "--name", "web", "--hostname", "web", "--network", "blue", netlab.Image, "sh", "-c", server)
	ip := s.docker(s.one, "inspect", "-f", "{{.NetworkSettings.Networks.blue.IPAddress}}", "web")
	s.docker(s.two, "run", "--rm", "--network", "blue", netlab.Image, "ping", "-c", "3", "-w", "10", ip)
	s.want("hello from web", s.docker(s.two, "run", "--rm", "--network", "blue", netlab.Image, "timeout", "10", "wget", "-q", "-O", "-", "http://"+ip+"/"))
}

func (s *stage) ports() {
	say("A published port, reached from outside both hosts")
	s.docker(s.two, "run", "-d", "--name", "shop", "--hostname", "shop", "--network", "blue", "-p", "8080:80", netlab.Image, "sh", "-c", server)
	s.docker(s.two, "ps", "--format", "table {{.Names}}\t{{.Ports}}")
	s.want("hello from shop", s.run(s.lab.Wire(), "curl", "-sS", "--max-time", "10", "--retry", "5", "--retry-connrefused", "http://"+s.two.Addr().String()+":8080/"))
	say("And the way out: " + netlab.Outside + " is an address outside the network")
	s.docker(s.two, "exec", "shop", "ping", "-c", "2", "-w", "10", netlab.Outside)
}

func (s *stage) leases() {
	say("The leases in etcd, as stock flannel writes them")
	out := s.etcd()
	s.want(s.one.Addr().String(), out)
	s.want(s.two.Addr().String(), out)
}

func (s *stage) etcd() string {
	return s.run(s.lab.Wire(), "etcdctl", "--endpoints=http://"+s.one.Addr().String()+":2379", "get", "--prefix", "/coreos.com/network/")
}

func (s *stage) away() {
	say("Taking it away leaves nothing")
	for _, h := range []*netlab.Host{s.two, s.one} {
		s.docker(h, "rm", "-f", map[*netlab.Host]string{s.one: "web", s.two: "shop"}[h])
		s.docker(h, "network", "rm", "blue")
		s.run(h, "sh", "-c", "ip link; ip route")
	}
	out := s.etcd()
	for end := time.Now().Add(10 * time.Second); s.err == nil && strings.Contains(out, "subnets/"); out = s.etcd() {
		if time.Now().After(end) { // a release goes on behind where the disk is slow
			s.err = fmt.Errorf("a lease is left behind:\n%s", out)
		}
	}
	for _, h := range []*netlab.Host{s.two, s.one} {
		s.docker(h, "plugin", "disable", "docker-flannel")
		s.docker(h, "plugin", "rm", "docker-flannel")
	}
}

func (s *stage) docker(h *netlab.Host, args ...string) string {
	return s.run(h, "docker", args...)
}

// run shows a command, runs it and shows what it printed.
func (s *stage) run(h *netlab.Host, name string, args ...string) string {
	if s.err != nil {
		return ""
	}
	fmt.Printf("%s# %s\n", h.Name(), typed(append([]string{name}, args...)))
	out, err := h.Exec(s.ctx, name, args...)
	if out != "" {
		fmt.Println(out)
	}
	s.err = err
	return out
}

// want stops the demo when an answer is not what it should be.
func (s *stage) want(part, text string) {
	if s.err == nil && !strings.Contains(text, part) {
		s.err = fmt.Errorf("expected %q, got %q", part, text)
	}
}

// typed is a command as a person types it into a shell.
func typed(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if arg == "" || strings.ContainsAny(arg, " \t\"'$;{}|&<>") {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
