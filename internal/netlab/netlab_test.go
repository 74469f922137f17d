//go:build lab

// These tests need root, and those with an engine what scripts/lab-setup
// makes: go test -tags lab ./internal/netlab

package netlab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const ownerDir = "NETLAB_TEST_OWNER"

// TestMain is also the lab that TestSweep kills: this binary started with
// ownerDir set makes one and waits for its end.
func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerDir); dir != "" {
		id, err := ownLab(dir)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready", id)
		select {}
	}
	os.Exit(m.Run())
}

func ownLab(dir string) (string, error) {
	lab, err := New(dir, nil)
	if err != nil {
		return "", err
	}
	h, err := lab.AddHost(HostSpec{Name: "h1", Engine: "28.5"})
	if err != nil {
		return "", err
	}
	if err := h.StartEngine(context.Background()); err != nil {
		return "", err
	}
	plain, err := lab.AddHost(HostSpec{Name: "h2"})
	if err != nil {
		return "", err
	}
	if _, err := plain.Start("sh", "-c", "sleep 1000 & wait"); err != nil {
		return "", err
	}
	_, err = lab.Etcd(context.Background())
	return lab.id, err
}

func TestPlainHostsNeedRoot(t *testing.T) {
	lab := newLab(t)
	a := addHost(t, lab, HostSpec{})
	b := addHost(t, lab, HostSpec{MTU: 1400})
	far := addHost(t, lab, HostSpec{Name: "far", Addr: netip.MustParsePrefix("203.0.113.7/24")})

	for _, to := range []string{b.Addr().String(), far.Addr().String(), Gateway, Outside} {
		must(a.Exec(t.Context(), "ping", "-c1", "-W5", to))
	}
	must(lab.Wire().Exec(t.Context(), "ping", "-c1", "-W5", a.Addr().String()))
	if link := must(b.Exec(t.Context(), "ip", "link", "show", "eth0")); !strings.Contains(link, "mtu 1400") {
		t.Errorf("want an MTU of 1400: %s", link)
	}

	if err := b.Unplug(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Exec(t.Context(), "ping", "-c1", "-W1", b.Addr().String()); err == nil {
		t.Error("an unplugged host answers")
	}
	if err := b.Replug(); err != nil {
		t.Fatal(err)
	}
	must(a.Exec(t.Context(), "ping", "-c1", "-w10", b.Addr().String())) // the first may come before the port is open
}

func TestDoNeedsRoot(t *testing.T) {
	lab := newLab(t)
	a, b := addHost(t, lab, HostSpec{}), addHost(t, lab, HostSpec{})

	var listener net.Listener
	err := b.Do(func() (err error) {
		listener, err = net.Listen("tcp", "0.0.0.0:7")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, _ = io.WriteString(conn, conn.RemoteAddr().(*net.TCPAddr).IP.String()) // the reader misses it
			conn.Close()
		}
	}()
	conn, err := a.DialContext(t.Context(), "tcp", b.Addr().String()+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if heard := string(must(io.ReadAll(conn))); heard != a.Addr().String() {
		t.Errorf("the listener saw %s, want %s", heard, a.Addr())
	}

	home := must(os.Readlink("/proc/thread-self/ns/net"))
	broken := errors.New("broken")
	if err := a.Do(func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Do returned %v", err)
	}
	if now := must(os.Readlink("/proc/thread-self/ns/net")); now != home {
		t.Errorf("the goroutine came back to %s, not %s", now, home)
	}
}

func TestExecErrorsNeedRoot(t *testing.T) {
	lab := newLab(t)
	h := addHost(t, lab, HostSpec{Name: "h1"})
	out, err := h.Exec(t.Context(), "sh", "-c", "echo out; echo trouble >&2; exit 3")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("want exit status 3: %v", err)
	}
	for _, part := range []string{"h1", "sh -c echo out", "trouble"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("want %q in: %v", part, err)
		}
	}
	if out != "out" {
		t.Errorf("output %q", out)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Exec(ctx, "sh", "-c", "sleep 1000 | cat"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("want the deadline: %v", err)
	}
	space := must(os.Stat(filepath.Join(netnsDir, h.Netns())))
	if err := poll(10*time.Second, func() bool { return len(pidsIn(space)) == 0 }); err != nil {
		t.Errorf("processes %v outlive their deadline", pidsIn(space))
	}
}

func TestServicesNeedRoot(t *testing.T) {
	lab := newLab(t)
	h := addHost(t, lab, HostSpec{Name: "h1"})

	etcd, err := lab.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	must(lab.Etcdctl(t.Context(), etcd.Endpoint, "put", "/a", "b"))
	if err := etcd.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := etcd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := etcd.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := etcd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := must(lab.Etcdctl(t.Context(), etcd.Endpoint, "get", "--print-value-only", "/a")); got != "b" {
		t.Errorf("etcd holds %q after two restarts, want b", got)
	}

	registry, err := lab.Registry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := must(h.Exec(t.Context(), "curl", "-sSf", "http://"+registry+"/v2/_catalog")); got != `{"repositories":[]}` {
		t.Errorf("the registry lists %s", got)
	}
}

// Both engines at once, on one wire.
func TestEnginesNeedRoot(t *testing.T) {
	lab := newLab(t)
	registry, err := lab.Registry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for name, engine := range map[string]string{"old": "20.10", "new": "28.5"} {
		all.Go(func() {
			h, err := lab.AddHost(HostSpec{Name: name, Engine: engine, EngineFlags: []string{"--label=lab=netlab"}})
			if err != nil {
				t.Error(err)
				return
			}
			if err := checkEngine(t.Context(), h, registry); err != nil {
				t.Errorf("%v\n%s", err, tail(h.EngineLog(), 40))
			}
		})
	}
	all.Wait()
}

func checkEngine(ctx context.Context, h *Host, registry string) error {
	if err := h.StartEngine(ctx); err != nil {
		return err
	}
	if err := h.LoadImage(ctx); err != nil {
		return err
	}
	pushed := registry + "/test:" + h.Name()
	source, err := os.MkdirTemp(h.lab.dir, "copy")
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(source+"/run", []byte("#!/bin/sh\necho copied\n"), 0o755),
		os.Symlink("run", source+"/link")); err != nil {
		return err
	}
	if err := h.CopyIn(ctx, source, "/srv/copied"); err != nil {
		return err
	}
	if err := expect(ctx, h, []check{
		{"docker version -f {{.Server.Version}}", h.spec.Engine + "."},
		{"docker version -f {{.Client.Version}}", h.spec.Engine + "."},
		{"hostname", h.Name()},
		{"touch /run/of-before", ""},
		{"/srv/copied/link", "copied"},
		{"docker run --rm busybox ping -c1 -W5 " + Outside, "PING"},
		{"docker run -d --init --restart=always -p 80:80 --name web busybox httpd -f -h /bin", ""},
		{"docker tag busybox " + pushed, ""},
		{"docker push -q " + pushed, pushed},
		{"docker rmi " + pushed, "Untagged"},
		{"docker pull -q " + pushed, pushed},
	}); err != nil {
		return err
	}
	if err := webAnswers(ctx, h); err != nil {
		return err
	}
	return checkRestarts(ctx, h)
}

func checkRestarts(ctx context.Context, h *Host) error {
	restart := []func() error{
		func() error { return h.StopEngine(ctx) },
		func() error { h.KillEngine(); return nil },
		h.PowerOff,
	}
	for _, stop := range restart {
		if err := stop(); err != nil {
			return err
		}
		if _, err := h.Docker(ctx, "version"); err == nil {
			return fmt.Errorf("%s: the engine answers though it ended", h.Name())
		}
		if err := h.StartEngine(ctx); err != nil {
			return err
		}
		if err := webAnswers(ctx, h); err != nil {
			return err
		}
	}
	return expect(ctx, h, []check{
		{"find /run -name of-before", ""},
		{"/srv/copied/run", "copied"},
		{"docker rm -f web", "web"},
	})
}

// webAnswers waits until the container web answers at its published port.
func webAnswers(ctx context.Context, h *Host) error {
	_, err := h.lab.Wire().Exec(ctx, "curl", "-sS", "-o", "/dev/null",
		"--retry", "40", "--retry-all-errors", "--retry-delay", "1", "--max-time", "5", "http://"+h.Addr().String()+"/")
	return err
}

type check struct{ line, prefix string }

func expect(ctx context.Context, h *Host, checks []check) error {
	for _, c := range checks {
		words := strings.Fields(c.line)
		out, err := h.Exec(ctx, words[0], words[1:]...)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(out, c.prefix) || c.prefix == "" && strings.Contains(out, "of-before") {
			return fmt.Errorf("%s: %s: got %q, want %q", h.Name(), c.line, out, c.prefix)
		}
	}
	return nil
}

func TestCloseLeavesNothingNeedsRoot(t *testing.T) {
	lab, err := New(filepath.Join(t.TempDir(), "lab"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	}()
	h := addHost(t, lab, HostSpec{Engine: "28.5"})
	if err := h.StartEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.LoadImage(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(h.Docker(t.Context(), "run", "-d", Image, "sleep", "1000"))
	must(addHost(t, lab, HostSpec{Name: "p"}).Start("sh", "-c", "setsid sleep 1000 & wait"))
	must(lab.Etcd(t.Context()))
	must(lab.Registry(t.Context()))

	trace := footprint{lab.id, lab.dir, descendants(os.Getpid())}
	if there := trace.find(); len(there) < 12 {
		t.Errorf("a lab should be seen by more than %q", there)
	}
	for range 2 {
		if err := lab.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, thing := range trace.find() {
		t.Errorf("left behind: %s", thing)
	}
	if _, err := h.Exec(t.Context(), "true"); err == nil {
		t.Error("a host of a closed lab takes commands")
	}
}

func TestSweepNeedsRoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	command := exec.Command(must(os.Executable()))
	command.Env = append(os.Environ(), ownerDir+"="+dir)
	out := must(command.StdoutPipe())
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	id, ready := strings.CutPrefix(strings.TrimSpace(said), "ready ")
	trace := footprint{id, dir, descendants(command.Process.Pid)}
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait() // it was killed
	if !ready {
		t.Fatalf("the other lab: %s %v", said, err)
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	// The kernel ends the processes in its own time.
	_ = poll(30*time.Second, func() bool { return len(trace.find()) == 0 })
	for _, thing := range trace.find() {
		t.Errorf("left behind: %s", thing)
	}
}

// footprint is what a lab could leave on the machine; other labs may come and
// go meanwhile.
type footprint struct {
	id, dir string
	procs   []string // as descendants lists them
}

func (f footprint) find() []string {
	var list []string
	patterns := append(must(labCgroups(f.id)), f.dir, filepath.Join(netnsDir, f.id+"-*"), filepath.Join(ownersDir, f.id))
	for _, pattern := range patterns {
		list = append(list, must(filepath.Glob(pattern))...)
	}
	for line := range strings.Lines(string(must(os.ReadFile("/proc/self/mountinfo")))) {
		if strings.Contains(line, f.id) || strings.Contains(line, f.dir) {
			list = append(list, "mount "+line)
		}
	}
	for _, proc := range f.procs {
		pid, _, _ := strings.Cut(proc, " ")
		if now, _ := stat(pid); now == proc {
			list = append(list, "process "+proc)
		}
	}
	return list
}

// descendants lists the processes that root started, directly or not.
func descendants(root int) []string {
	children := make(map[string][]string)
	for _, path := range must(filepath.Glob("/proc/[0-9]*")) {
		pid := filepath.Base(path)
		_, parent := stat(pid)
		children[parent] = append(children[parent], pid)
	}
	var list []string
	for queue := []string{strconv.Itoa(root)}; len(queue) > 0; queue = queue[1:] {
		queue = append(queue, children[queue[0]]...)
		for _, pid := range children[queue[0]] {
			if name, _ := stat(pid); name != "" {
				list = append(list, name)
			}
		}
	}
	return list
}

// stat names a process so that its number's next user has another name, and
// tells its parent; nothing when it is gone or waits only for being reaped.
func stat(pid string) (name, parent string) {
	text, _ := os.ReadFile("/proc/" + pid + "/stat")
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return "", ""
	}
	fields := strings.Fields(string(text[end+1:])) // from the third, proc_pid_stat(5)
	if fields[0] == "Z" {
		return "", ""
	}
	return pid + " started " + fields[19], fields[1]
}

func newLab(t *testing.T) *Lab {
	t.Helper()
	lab, err := New(filepath.Join(t.TempDir(), "lab"), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

func addHost(t *testing.T, lab *Lab, spec HostSpec) *Host {
	t.Helper()
	if spec.Name == "" {
		spec.Name = fmt.Sprintf("h%d", len(lab.hosts)+1)
	}
	h, err := lab.AddHost(spec)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// must unwraps a result that a test cannot go on without.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
