package netlab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// HostSpec is what a host is made from.
type HostSpec struct {
	// Name is the host's name and that of its interface on the wire.
	Name string
	// Addr is the address of eth0, by default the next of 192.0.2.0/24. A
	// host of another subnet reaches the others through the wire's router,
	// which takes the subnet's last address.
	Addr netip.Prefix
	// Engine is the Docker engine's version, "20.10" or "28.5". Without one
	// the host is only a network namespace.
	Engine string
	// MTU of eth0, 1500 by default.
	MTU int
	// EngineFlags are given to dockerd after the lab's own.
	EngineFlags []string
}

// Host is a machine of the lab. Its methods may be called from several
// goroutines; those that switch power or engine wait for each other.
type Host struct {
	lab  *Lab
	spec HostSpec

	power sync.Mutex // held while power or engine change

	mu     sync.Mutex // guards what follows
	ns     *netns     // nil without power
	keeper *keeper    // nil without power or engine
	engine *Proc
	logs   int
}

// AddHost makes a host and switches it on. Its engine does not run yet.
func (l *Lab) AddHost(spec HostSpec) (*Host, error) {
	h, err := l.admit(spec)
	if err != nil {
		return nil, fmt.Errorf("add host: %w", err)
	}
	if err := h.PowerOn(context.Background()); err != nil {
		return nil, err
	}
	return h, nil
}

// Name is the host's name.
func (h *Host) Name() string { return h.spec.Name }

// Addr is the address of the host's eth0.
func (h *Host) Addr() netip.Addr { return h.spec.Addr.Addr() }

// Netns is the name of the host's network namespace, as `ip netns` lists it.
func (h *Host) Netns() string { return h.lab.id + "-" + h.spec.Name }

// Root is where the host's root folder is to be seen from outside, empty while
// there is none. An absolute symbolic link in it leads outside.
func (h *Host) Root() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keeper == nil {
		return ""
	}
	return fmt.Sprintf("/proc/%d/root", h.keeper.proc.Pid())
}

// Exec runs a command on the host and returns its standard output without the
// last newlines. With an engine it runs inside the host's root folder and
// namespaces, without one in the host's network namespace only. The error
// holds the command line and what was said on standard error, and wraps
// *exec.ExitError.
func (h *Host) Exec(ctx context.Context, name string, args ...string) (string, error) {
	return h.ExecIn(ctx, nil, name, args...)
}

// ExecIn is Exec with a standard input.
func (h *Host) ExecIn(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	j, err := h.job(name, args)
	if err != nil {
		return "", err
	}
	j.stdin = stdin
	out, err := h.lab.run(ctx, j)
	if err != nil {
		return out, fmt.Errorf("%s: %w", h.spec.Name, err)
	}
	return out, nil
}

// Start runs a command on the host, as Exec does, and leaves it running. What
// it writes goes to the file Proc.Log names. The lab's end is its end.
func (h *Host) Start(name string, args ...string) (*Proc, error) {
	j, err := h.job(name, args)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.logs++
	file := fmt.Sprintf("%s-%d.log", filepath.Base(name), h.logs)
	h.mu.Unlock()
	return h.startLogged(j, file)
}

func (h *Host) startLogged(j job, file string) (*Proc, error) {
	path := filepath.Join(h.dir(), file)
	if err := os.MkdirAll(h.dir(), 0o755); err != nil {
		return nil, fmt.Errorf("%s: log of %s: %w", h.spec.Name, j.argv[0], err)
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("%s: log of %s: %w", h.spec.Name, j.argv[0], err)
	}
	defer log.Close()
	j.stdout, j.stderr = log, log
	p, err := h.lab.start(context.Background(), j)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.spec.Name, err)
	}
	p.log = path
	return p, nil
}

// Do runs fn with the calling goroutine in the host's network namespace.
// Goroutines that fn starts are outside of it.
func (h *Host) Do(fn func() error) error {
	ns, err := h.network()
	if err != nil {
		return err
	}
	return ns.do(fn)
}

// DialContext connects from the host to an address, which is no name.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ns, err := h.network()
	if err != nil {
		return nil, err
	}
	return ns.dial(ctx, network, address)
}

// CopyIn copies a folder's content to a folder of a host with an engine.
func (h *Host) CopyIn(ctx context.Context, src, dst string) error {
	if _, err := h.Exec(ctx, "mkdir", "-p", dst); err != nil {
		return err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("%s: copy %s: %w", h.spec.Name, src, err)
	}
	defer out.Close()
	var said strings.Builder
	pack := exec.CommandContext(ctx, "tar", "-C", src, "--numeric-owner", "-cf", "-", ".")
	pack.Stdout, pack.Stderr = in, &said
	err = pack.Start()
	in.Close()
	if err != nil {
		return fmt.Errorf("%s: copy %s: %w", h.spec.Name, src, err)
	}
	_, unpacked := h.ExecIn(ctx, out, "tar", "-C", dst, "--numeric-owner", "-xpf", "-")
	out.Close()
	if err := pack.Wait(); err != nil && unpacked == nil {
		return fmt.Errorf("%s: copy %s: %w: %s", h.spec.Name, src, err, strings.TrimSpace(said.String()))
	}
	return unpacked
}

func (h *Host) job(name string, args []string) (job, error) {
	j := job{argv: append([]string{name}, args...)}
	ns, err := h.network()
	if err != nil {
		return j, err
	}
	j.space = ns.space()
	if h.spec.Engine == "" {
		j.env = append(os.Environ(), "LC_ALL=C") // tests read what programs say
		return j, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keeper == nil {
		return j, h.noPower()
	}
	j.space, j.env = h.keeper.space(), hostEnv()
	return j, nil
}

func (h *Host) network() (*netns, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ns == nil {
		return nil, h.noPower()
	}
	return h.ns, nil
}

func (h *Host) noPower() error { return fmt.Errorf("host %s has no power", h.spec.Name) }

func (h *Host) dir() string { return filepath.Join(h.lab.dir, h.spec.Name) }

func (n *netns) space() space { return space{n.file, unix.CLONE_NEWNET} }

func hostEnv() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"LANG=C.UTF-8",
	}
}
