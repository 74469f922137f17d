//go:build lab

package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/logbuf"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// TestProcess runs the suite over a real etcd.
func TestProcess(t *testing.T) { suite(t, newWorld, startProcess(t)) }

// startProcess runs the etcd of the PATH for one test and returns its endpoint.
func startProcess(t *testing.T) string {
	p := newProcess(t, "http")
	p.start(t)
	status, err := dial(t, p.endpoint).Status(t.Context(), p.endpoint) // waits for the server
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("etcd %s", status.Version)
	return p.endpoint
}

// process is a real etcd, which keeps its data and its address over restarts.
type process struct {
	endpoint string
	args     []string
	cmd      *exec.Cmd
	log      logbuf.Buffer
}

func newProcess(t *testing.T, scheme string, args ...string) *process {
	ports := freePorts(t)
	peerURL := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	p := &process{endpoint: fmt.Sprintf("%s://127.0.0.1:%d", scheme, ports[0])}
	p.args = append([]string{"--name", "lab", "--data-dir", t.TempDir(), "--log-outputs", "stderr", "--logger", "zap",
		"--listen-client-urls", p.endpoint, "--advertise-client-urls", p.endpoint,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL, "--initial-cluster", "lab=" + peerURL}, args...)
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("etcd's log:\n%s", p.log.String())
		}
	})
	return p
}

func (p *process) start(t *testing.T) {
	t.Helper()
	binary, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatalf("the lab needs etcd (Debian: etcd-server): %v", err)
	}
	p.cmd = exec.Command(binary, p.args...)
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (p *process) stop() {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		_ = p.cmd.Wait() // says that it was ended
		p.cmd = nil
	}
}

// freePorts returns two ports that nobody listens at.
func freePorts(t *testing.T) (ports [2]int) {
	t.Helper()
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // not before the other one is known
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// A server that falls silent, its connections still open, is given up within
// keepAliveTime and keepAliveTimeout, and found again when it is back.
func TestSilentServer(t *testing.T) {
	w := newWorld(t, startProcess(t))
	w.configure(t, stockConfig)
	p := newProxy(t, w.endpoint)
	var log logbuf.Buffer
	c, err := Dial(Options{Endpoints: []string{p.endpoint()}, CallTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lost := make(chan struct{}, 1)
	s := New(c, w.prefix, WithLogger(slog.New(slog.NewTextHandler(io.MultiWriter(&log, signal(lost)), nil))))
	seen := watch(t, s, "")
	seen.await(t, "the start", func(s overlay.Snapshot) bool { return s.Config.EnableIPv4 })

	p.frozen.Lock()
	start := time.Now()
	if _, err := s.Config(t.Context(), "", nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 6*time.Second {
		t.Errorf("a call: %v after %s", err, time.Since(start))
	} else {
		t.Log(err)
	}
	w.put(t, "/subnets/10.5.1.0-24", valueOf(1))
	select {
	case <-lost:
		if d := time.Since(start); d > keepAliveTime+keepAliveTimeout+5*time.Second {
			t.Errorf("noticed after %s", d)
		} else {
			t.Logf("noticed after %s", d)
		}
	case <-time.After(patience):
		t.Error("not noticed")
	}
	p.frozen.Unlock()
	start = time.Now()
	seen.await(t, "the lease", func(s overlay.Snapshot) bool { return len(s.Leases) == 1 })
	t.Logf("back after %s\n%s", time.Since(start), log.String())
}

// signal is told of every line of a log.
type signal chan struct{}

func (s signal) Write(p []byte) (int, error) {
	select {
	case s <- struct{}{}:
	default:
	}
	return len(p), nil
}
