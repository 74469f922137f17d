package netlab

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

//go:embed init.sh
var initScript string

// keeper is a host's first process: all others die with it.
type keeper struct {
	proc    *Proc
	pidfd   *os.File
	cgroups []string
}

func (k *keeper) space() space { return space{k.pidfd, hostSpace} }

// PowerOn gives the host a fresh network namespace and, with an engine, boots
// its root folder from its disk. A host that has power is left as it is.
func (h *Host) PowerOn(ctx context.Context) error {
	h.power.Lock()
	defer h.power.Unlock()
	return h.powerOn(ctx)
}

func (h *Host) powerOn(ctx context.Context) error {
	if _, err := h.network(); err == nil {
		return nil
	}
	if h.lab.isClosed() {
		return errClosed
	}
	defer h.lab.log.timed("%s: power on", h.spec.Name)()
	ns, err := newNetns(h.Netns())
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.ns = ns
	h.mu.Unlock()
	err = h.lab.plug(h.spec, ns)
	if err == nil && h.spec.Engine != "" {
		err = h.boot(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("switch %s on: %w", h.spec.Name, err), h.powerOff())
	}
	return nil
}

// PowerOff ends all of the host at once, as a power loss does: processes,
// kernel network state and /run are gone, the disk stays.
func (h *Host) PowerOff() error {
	if h == h.lab.wire {
		return errors.New("the wire has no switch")
	}
	h.power.Lock()
	defer h.power.Unlock()
	defer h.lab.log.timed("%s: power off", h.spec.Name)()
	return h.powerOff()
}

func (h *Host) powerOff() error {
	h.mu.Lock()
	ns, k := h.ns, h.keeper
	h.ns, h.keeper, h.engine = nil, nil, nil
	h.mu.Unlock()
	if ns == nil {
		return nil
	}
	var failed error
	if k != nil {
		k.proc.Kill()
		k.pidfd.Close()
		failed = removeCgroups(k.cgroups)
	}
	failed = errors.Join(failed, killIn(ns.path()), h.lab.pull(h))
	if failed = errors.Join(failed, ns.remove()); failed != nil {
		return fmt.Errorf("switch %s off: %w", h.spec.Name, failed)
	}
	return nil
}

func (h *Host) boot(ctx context.Context) error {
	root := h.lab.EngineRoot(h.spec.Engine)
	if _, err := os.Stat(root); err != nil {
		return fmt.Errorf("engine %s: run scripts/lab-setup first: %w", h.spec.Engine, err)
	}
	for _, dir := range []string{"root", "upper", "work", "docker"} {
		if err := os.MkdirAll(filepath.Join(h.dir(), dir), 0o755); err != nil {
			return err
		}
	}
	groups, err := makeCgroups(h.lab.owner.groups, h.spec.Name)
	if err != nil {
		return err
	}
	k, err := h.startKeeper(ctx, root, groups)
	if err != nil {
		return errors.Join(err, removeCgroups(groups))
	}
	h.mu.Lock()
	h.keeper = k
	h.mu.Unlock()
	return nil
}

func (h *Host) startKeeper(ctx context.Context, root string, groups []string) (*keeper, error) {
	ready, tell, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	var said bytes.Buffer
	pidfd := -1
	proc, err := h.lab.start(context.Background(), job{
		space: h.ns.space(),
		argv:  []string{"sh", "-c", initScript, "init"},
		title: "init.sh",
		env: append(hostEnv(), "ENGINE="+root, "DISK="+h.dir(), "NAME="+h.spec.Name,
			"CGROUPS="+strings.Join(groups, " ")),
		stdout: &said,
		stderr: &said,
		files:  []*os.File{tell},
		sys: unix.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
			PidFD:      &pidfd,
		},
	})
	tell.Close()
	if err != nil {
		return nil, err
	}
	k := &keeper{proc: proc, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), cgroups: groups}
	if err := k.await(ctx, ready); err != nil {
		proc.Kill()
		k.pidfd.Close()
		return nil, fmt.Errorf("boot: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return k, nil
}

// await waits until the host's first process has said that it is ready.
func (k *keeper) await(ctx context.Context, ready *os.File) error {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, k.proc.cancel)
	defer stop()
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return errors.Join(context.Cause(ctx), k.proc.Wait())
	}
	return nil
}
