package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/driver"
	"github.com/docker-flannel/docker-flannel/internal/logbuf"
	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/ipam"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// shelf is a Store that this host has for itself.
type shelf struct {
	mu    sync.Mutex
	lease *overlay.Lease
	down  error // what an operator's calls answer
}

func (*shelf) Config(context.Context, string, overlay.Initial) (overlay.Config, error) {
	return overlay.ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`))
}

func (s *shelf) Networks(ctx context.Context) (map[string]overlay.Config, error) {
	cfg, err := s.Config(ctx, "", nil)
	return map[string]overlay.Config{"": cfg}, err
}

func (s *shelf) Claim(_ context.Context, _ string, c overlay.Claim) (overlay.Lease, error) {
	l := overlay.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), PublicIP: c.PublicIP, BackendType: c.BackendType, BackendData: c.BackendData}
	if c.Must && c.Prefer != l.Subnet {
		return l, &overlay.TakenError{Subnet: c.Prefer, Owner: netip.MustParseAddr("192.0.2.9")}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease = &l
	return l, nil
}

func (*shelf) Keep(context.Context, string, overlay.Lease) error { return nil }

func (*shelf) Moved() {}

func (s *shelf) Release(context.Context, string, overlay.Lease) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease = nil
	return nil
}

func (*shelf) Watch(ctx context.Context, _ string, _ func(overlay.Snapshot)) error {
	<-ctx.Done()
	return ctx.Err()
}

func (s *shelf) Survey(ctx context.Context) ([]report.Cluster, error) {
	c, err := s.Leases(ctx, "")
	return []report.Cluster{c, {Network: "blue", CIDR: netip.MustParsePrefix("10.9.0.0/16"), Backend: "host-gw"}}, err
}

func (s *shelf) Leases(_ context.Context, network string) (report.Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return report.Cluster{}, s.down
	}
	if network != "" {
		return report.Cluster{}, overlay.ErrNoConfig
	}
	c := report.Cluster{CIDR: netip.MustParsePrefix("10.5.0.0/16"), Backend: "vxlan", Odd: []report.Odd{{Key: "/subnets/junk", Reason: "not a lease"}}}
	if s.lease != nil {
		c.Leases = append(c.Leases, report.ClusterLease{Subnet: s.lease.Subnet, PublicIP: s.lease.PublicIP, Backend: "vxlan", TTL: time.Hour, Left: time.Minute})
	}
	return c, nil
}

func (s *shelf) Remove(_ context.Context, network string) error {
	if network == "" {
		return errors.New("leases stand in it: host 192.0.2.1")
	}
	return overlay.ErrNoConfig
}

func (s *shelf) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return ""
	}
	return "lease " + s.lease.Subnet.String() + "\n"
}

// slate is a Kernel that holds a State and nothing else.
type slate struct {
	mu    sync.Mutex
	state kernel.State
}

func (s *slate) Apply(_ context.Context, want kernel.State) kernel.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = want
	return kernel.Result{}
}

func (*slate) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

func (*slate) Doubt() {}

func (*slate) Inside(f func() error) error { return f() }

func (*slate) Conflict(netip.Prefix, ...string) (string, error) { return "", nil }

func (*slate) Underlay(kernel.UnderlaySpec) (kernel.Underlay, error) {
	ip := netip.MustParseAddr("192.0.2.1")
	return kernel.Underlay{Name: "eth0", Index: 2, MTU: 1500, Addr: ip, PublicIP: ip}, nil
}

func (s *slate) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Whether a missing pair is to be made lasts as long as a Join.
	return strings.ReplaceAll(s.state.String(), " create\n", "\n")
}

// world is every room of the plugin on a store and a kernel that are not real.
type world struct {
	http.Handler
	overlay *overlay.Overlay
	ipam    *ipam.Clerk
	store   shelf
	kernel  slate
	log     logbuf.Buffer
	initial []byte // config to create where the store has none
	dir     string
	stop    func() error
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w, err := worldIn(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

func worldIn(dir string) (w *world, err error) {
	w = &world{dir: dir}
	return w, w.open(&w.store, slog.New(slog.NewTextHandler(&w.log, nil)))
}

// open makes the rooms on a store, and runs them.
func (w *world) open(store overlay.Store, log *slog.Logger) (err error) {
	w.overlay, err = overlay.New(overlay.Options{
		Dir: w.dir, Store: store, Kernel: &w.kernel, Backends: backends, Initial: w.initial, TTL: 24 * time.Hour, Log: log,
	})
	if err != nil {
		return err
	}
	if w.ipam, err = ipam.New(filepath.Join(w.dir, "addresses.json"), w.overlay); err != nil {
		return err
	}
	w.Handler = routes(driver.New(w.overlay, w.overlay, w.ipam), w.ipam, log)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.overlay.Run(ctx) }()
	w.stop = func() error {
		cancel()
		return <-ended
	}
	return nil
}

// state is all that a call can change: both files, the lease and the kernel.
func (w *world) state(t testing.TB) string {
	t.Helper()
	var text strings.Builder
	for _, name := range []string{"networks.json", "addresses.json"} {
		b, err := os.ReadFile(filepath.Join(w.dir, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s: %s\n", name, b)
	}
	return text.String() + w.store.text() + w.kernel.text()
}

// await waits for what goes on behind an answer.
func (w *world) await(t testing.TB, what string, done func(state string) bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(w.state(t)); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: still\n%s", what, w.state(t))
		}
	}
}

// socket serves the world as the plugin does, and returns where.
func (w *world) socket(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	paths := Paths{Managed: filepath.Join(dir, "managed.sock"), Legacy: filepath.Join(dir, "flannel.sock")}
	d, err := listen(t.Context(), paths, quietLog())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.serve(ctx, w) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		if text := w.log.String(); strings.Contains(text, "panic") {
			t.Errorf("log:\n%s", text)
		}
	})
	return paths.Managed
}

// caller makes calls at a socket.
type caller struct{ client http.Client }

func newCaller(t testing.TB, socket string) *caller {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{http.Client{Transport: transport}}
}

// call returns the answer, and its error where it is one.
func (c *caller) call(t testing.TB, method, path, body string) (answer, fault string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://plugin"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.client.Do(req)
	if err != nil {
		t.Fatalf("%s %.200s: %v", path, body, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), faultOf(t, res.StatusCode, text)
}

// faultOf is the error in an answer, which must say it twice.
func faultOf(t testing.TB, status int, text []byte) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatalf("the answer %d %.200q is no JSON: %v", status, text, err)
	}
	fault, _ := fields["Err"].(string)
	if fields["Error"] != fields["Err"] || (fault == "") != (fields["Err"] == nil) || (status != http.StatusOK && fault == "") {
		t.Fatalf("answer %d %.200q", status, text)
	}
	return fault
}
