// Package netlab builds several Docker hosts on one machine, for tests and for
// a demonstration: every host is a network namespace on one wire, and a host
// with an engine is a whole root folder with its own mounts, processes and
// dockerd. It needs root, and for engines what scripts/lab-setup makes.
//
// A lab leaves nothing behind: Close undoes everything, the kernel kills the
// lab's processes when the owner dies, and the next New sweeps up the rest.
package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Gateway is the wire's own address and every host's default gateway.
	Gateway = "192.0.2.254"
	// Outside is an address behind the gateway, on no host's subnet.
	Outside = "198.51.100.1"

	defaultCache = "/var/cache/docker-flannel"
	patience     = 60 * time.Second
)

var (
	labs      atomic.Int64
	errClosed = errors.New("the lab is closed")
)

// Lab is one wire and the hosts on it. Its methods may be called from several
// goroutines.
type Lab struct {
	id    string
	dir   string
	cache string
	owner *owner
	wire  *Host
	log   *narrator

	mu       sync.Mutex
	closed   bool
	hosts    map[string]*Host
	octets   [255]bool // of 192.0.2.0/24, those given to hosts
	procs    map[*Proc]struct{}
	registry *service
	etcd     *Etcd
}

// New makes a lab with an empty wire. Everything it stores is in dir, which
// must be empty or not exist; an empty name means a fresh temporary folder.
// It says on log, which may be nil, what it does and how long that took.
func New(dir string, log io.Writer) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("make a lab: root is needed for network namespaces")
	}
	if err := Sweep(); err != nil {
		return nil, fmt.Errorf("sweep up after dead labs: %w", err)
	}
	dir, err := emptyDir(dir)
	if err != nil {
		return nil, err
	}
	lab := &Lab{
		id:    fmt.Sprintf("netlab-%d-%d", os.Getpid(), labs.Add(1)),
		dir:   dir,
		cache: cacheDir(),
		log:   &narrator{to: log},
		hosts: make(map[string]*Host),
		procs: make(map[*Proc]struct{}),
	}
	if lab.owner, err = register(lab.id, dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := lab.layWire(); err != nil {
		return nil, errors.Join(err, lab.Close())
	}
	return lab, nil
}

// Wire is the network between the hosts, with Gateway and Outside as its
// addresses: commands run in it are the world outside the hosts. It has an
// interface of each host's name.
func (l *Lab) Wire() *Host { return l.wire }

// Host returns the host of that name, nil if there is none.
func (l *Lab) Host(name string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hosts[name]
}

// Close ends every process of the lab and removes its namespaces, cgroups and
// folder. It may be called twice, and with other calls under way: those fail.
func (l *Lab) Close() error {
	procs, hosts := l.shut()
	if hosts == nil {
		return nil
	}
	defer l.log.timed("lab closed")()
	for _, p := range procs {
		p.cancel()
	}
	for _, p := range procs {
		<-p.done
	}
	var failed error
	for _, h := range hosts {
		h.power.Lock()
		failed = errors.Join(failed, h.powerOff())
		h.power.Unlock()
	}
	return errors.Join(failed, l.owner.clean())
}

// shut closes the lab for new processes and hosts and hands out those there
// are; nothing the second time. The wire comes last: it holds every cable.
func (l *Lab) shut() ([]*Proc, []*Host) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil
	}
	l.closed = true
	return slices.Collect(maps.Keys(l.procs)), append(slices.Collect(maps.Values(l.hosts)), l.wire)
}

func (l *Lab) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (l *Lab) adopt(p *Proc) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed
	}
	l.procs[p] = struct{}{}
	return nil
}

func (l *Lab) forget(p *Proc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.procs, p)
}

func cacheDir() string {
	if dir := os.Getenv("LAB_CACHE"); dir != "" {
		return dir
	}
	return defaultCache
}

func emptyDir(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", "netlab-")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("lab folder: %w", err)
	}
	if strings.ContainsAny(dir, `:,\`) {
		return "", fmt.Errorf("lab folder %s: an overlay mount takes no colon, comma or backslash", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("lab folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("lab folder: %w", err)
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("lab folder %s is not empty, and Close would remove it", dir)
	}
	return dir, nil
}

// withPatience bounds a call whose caller set no deadline.
func withPatience(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %s", patience))
}

// narrator writes whole lines for several goroutines.
type narrator struct {
	mu sync.Mutex
	to io.Writer
}

func (n *narrator) timed(format string, args ...any) func() {
	start := time.Now()
	return func() {
		if n.to == nil {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		_, _ = fmt.Fprintf(n.to, "%s (%d ms)\n", fmt.Sprintf(format, args...), time.Since(start).Milliseconds())
	}
}

// EngineRoot is the root folder that hosts with this engine are overlays of.
func (l *Lab) EngineRoot(version string) string { return filepath.Join(l.cache, "engines", version) }
