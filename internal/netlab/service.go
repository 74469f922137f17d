package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	registryAddr = Gateway + ":5000"
	etcdAddr     = Gateway + ":2379"
)

// service is a server on the wire's own address.
type service struct {
	wire *Host
	addr string
	argv []string

	mu   sync.Mutex
	proc *Proc
}

// start starts the server and waits until it takes connections.
func (s *service) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && s.proc.running() {
		return nil
	}
	defer s.wire.lab.log.timed("%s started", s.argv[0])()
	p, err := s.wire.Start(s.argv[0], s.argv[1:]...)
	if err != nil {
		return err
	}
	ctx, cancel := withPatience(ctx)
	defer cancel()
	if err := s.await(ctx, p); err != nil {
		p.Kill()
		return fmt.Errorf("start %s: %w\n%s", s.argv[0], err, tail(p.log, 20))
	}
	s.proc = p
	return nil
}

func (s *service) await(ctx context.Context, p *Proc) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := s.wire.DialContext(ctx, "tcp", s.addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.done:
			return errors.Join(errors.New("it ended"), p.err)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// end ends the server by how and forgets it.
func (s *service) end(how func(*Proc) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	if err := how(s.proc); err != nil {
		return err
	}
	s.proc = nil
	return nil
}

// Registry starts the lab's image registry, if it does not run yet, and
// returns its address, to be put before an image's or a plugin's name. Every
// engine of the lab trusts it without TLS.
func (l *Lab) Registry(ctx context.Context) (string, error) {
	dir := filepath.Join(l.dir, "registry")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("start registry: %w", err)
	}
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf(`version: 0.1
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: %q}
`, filepath.Join(dir, "data"), registryAddr)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("start registry: %w", err)
	}
	l.mu.Lock()
	if l.registry == nil {
		l.registry = &service{wire: l.wire, addr: registryAddr, argv: []string{"docker-registry", "serve", config}}
	}
	s := l.registry
	l.mu.Unlock()
	return registryAddr, s.start(ctx)
}

// Etcd is the lab's etcd server.
type Etcd struct {
	// Endpoint is its client URL, reachable from every host.
	Endpoint string

	service service
}

// Etcd starts the lab's etcd, if it does not run yet. It listens on the wire;
// its data are in the lab's folder and outlive Stop and Kill.
func (l *Lab) Etcd(ctx context.Context) (*Etcd, error) {
	l.mu.Lock()
	if l.etcd == nil {
		const url = "http://" + etcdAddr
		l.etcd = &Etcd{Endpoint: url, service: service{wire: l.wire, addr: etcdAddr, argv: []string{
			"etcd", "--name=lab", "--data-dir=" + filepath.Join(l.dir, "etcd"),
			"--listen-client-urls=" + url, "--advertise-client-urls=" + url,
			"--listen-peer-urls=http://127.0.0.1:2380",
		}}}
	}
	e := l.etcd
	l.mu.Unlock()
	return e, e.Start(ctx)
}

// Start starts etcd if it does not run, and returns when it answers.
func (e *Etcd) Start(ctx context.Context) error {
	if err := e.service.start(ctx); err != nil {
		return err
	}
	_, err := e.service.wire.lab.Etcdctl(ctx, e.Endpoint, "endpoint", "health")
	return err
}

// Stop ends etcd in good order.
func (e *Etcd) Stop(ctx context.Context) error {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	return e.service.end(func(p *Proc) error { return p.Stop(ctx) })
}

// Kill ends etcd at once.
func (e *Etcd) Kill() error {
	return e.service.end(func(p *Proc) error { p.Kill(); return nil })
}

// Etcdctl runs etcdctl on the wire and returns what it printed without the
// last newlines.
func (l *Lab) Etcdctl(ctx context.Context, endpoint string, args ...string) (string, error) {
	args = append([]string{"ETCDCTL_API=3", "etcdctl", "--endpoints=" + endpoint}, args...)
	return l.wire.Exec(ctx, "env", args...)
}
