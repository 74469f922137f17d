package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Image is what LoadImage imports: Debian's busybox.
const Image = "busybox"

// StartEngine starts the host's dockerd, and switches the host on before if it
// has no power. It returns when the engine answers, within ctx's deadline or a
// minute.
func (h *Host) StartEngine(ctx context.Context) error {
	h.power.Lock()
	defer h.power.Unlock()
	if h.spec.Engine == "" {
		return fmt.Errorf("start engine on %s: the host has none", h.spec.Name)
	}
	if err := h.powerOn(ctx); err != nil {
		return err
	}
	if p := h.running(); p != nil {
		return fmt.Errorf("start engine on %s: it runs as process %d", h.spec.Name, p.Pid())
	}
	defer h.lab.log.timed("%s: engine %s started", h.spec.Name, h.spec.Engine)()
	if err := h.startEngine(ctx); err != nil {
		return fmt.Errorf("start engine on %s: %w", h.spec.Name, err)
	}
	return nil
}

func (h *Host) startEngine(ctx context.Context) error {
	j, err := h.job("dockerd", append([]string{
		// Relative, so below the host's own cgroup in every hierarchy.
		"--cgroup-parent=docker",
		"--exec-opt=native.cgroupdriver=cgroupfs",
		"--insecure-registry=" + registryAddr,
	}, h.spec.EngineFlags...))
	if err != nil {
		return err
	}
	h.mu.Lock()
	j.cgroups = h.keeper.cgroups
	h.mu.Unlock()
	p, err := h.startLogged(j, engineLog)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.engine = p
	h.mu.Unlock()
	if err := h.awaitEngine(ctx, p); err != nil {
		p.Kill()
		return fmt.Errorf("%w\n%s", err, tail(p.log, 20))
	}
	return nil
}

// StopEngine ends dockerd as a service manager does and waits for it. Its
// containers end too, unless it runs with --live-restore.
func (h *Host) StopEngine(ctx context.Context) error {
	h.power.Lock()
	defer h.power.Unlock()
	p := h.running()
	if p == nil {
		return nil
	}
	ctx, cancel := withPatience(ctx)
	defer cancel()
	defer h.lab.log.timed("%s: engine stopped", h.spec.Name)()
	if err := p.Stop(ctx); err != nil {
		return fmt.Errorf("stop engine on %s: %w", h.spec.Name, err)
	}
	return nil
}

// KillEngine ends dockerd without warning, as a crash does. Its containers and
// plugins run on until the next start.
func (h *Host) KillEngine() {
	h.power.Lock()
	defer h.power.Unlock()
	if p := h.running(); p != nil {
		defer h.lab.log.timed("%s: engine killed", h.spec.Name)()
		p.Kill()
	}
}

const engineLog = "engine.log"

// EngineLog is the file with all that the host's dockerd has written, over
// restarts and power losses.
func (h *Host) EngineLog() string { return filepath.Join(h.dir(), engineLog) }

// EngineSocket is the path of the engine's API socket as seen from outside,
// empty without power. It changes when the host boots.
func (h *Host) EngineSocket() string {
	root := h.Root()
	if root == "" {
		return ""
	}
	return root + "/run/docker.sock"
}

// Docker runs the docker command on the host, as a person there would, and
// returns what it printed without the last newlines.
func (h *Host) Docker(ctx context.Context, args ...string) (string, error) {
	return h.Exec(ctx, "docker", args...)
}

// DockerIn is Docker with a standard input.
func (h *Host) DockerIn(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	return h.ExecIn(ctx, stdin, "docker", args...)
}

// LoadImage imports the image Image into the host's engine.
func (h *Host) LoadImage(ctx context.Context) error {
	tar, err := os.Open(filepath.Join(h.lab.cache, "busybox.tar"))
	if err != nil {
		return fmt.Errorf("image %s: run scripts/lab-setup first: %w", Image, err)
	}
	defer tar.Close()
	defer h.lab.log.timed("%s: image %s loaded", h.spec.Name, Image)()
	_, err = h.DockerIn(ctx, tar, "import", "--change", `CMD ["sh"]`, "-", Image)
	return err
}

// running is the host's dockerd, nil when it does not run.
func (h *Host) running() *Proc {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.engine == nil || !h.engine.running() {
		return nil
	}
	return h.engine
}

// awaitEngine asks the engine's API until it answers or dockerd has ended.
func (h *Host) awaitEngine(ctx context.Context, p *Proc) error {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	client := socketClient(h.EngineSocket())
	defer client.CloseIdleConnections()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ping(ctx, client)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return errors.Join(errors.New("dockerd ended"), p.err)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

func socketClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
}

func ping(ctx context.Context, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/version", nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the engine answers %s", answer.Status)
	}
	return nil
}

// tail returns the last lines of a file.
func tail(path string, count int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}
