package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/docker-flannel/docker-flannel/internal/logbuf"
)

const anyPort = "http://127.0.0.1:0"

// run starts a server and returns how to stop it.
func run(t *testing.T, o Options) (s *Server, stop func() error) {
	t.Helper()
	s = New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("server ended: %v", err)
	}
	return s, stop
}

func dial(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func get(t *testing.T, c *clientv3.Client, key string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := c.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) == 0 {
		return ""
	}
	return string(got.Kvs[0].Value)
}

func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	if _, err := c.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

// slow is what etcd says of a machine that keeps it waiting.
var slow = regexp.MustCompile(`apply request took too long|request stats|waiting for ReadIndex response took too long|slow fdatasync`)

// A server needs neither port 2380 nor its old address, gives no warnings, and
// does not wait for watches when it stops.
func TestRestartElsewhere(t *testing.T) {
	if l, err := net.Listen("tcp", "127.0.0.1:2380"); err == nil {
		defer l.Close()
	}
	var log logbuf.Buffer
	o := Options{Dir: t.TempDir() + "/etcd", Listen: anyPort, Log: slog.New(slog.NewTextHandler(&log, nil))}
	first, stop := run(t, o)
	c := dial(t, first.Endpoint())
	put(t, c, "/k", "v")
	watch := c.Watch(t.Context(), "/k", clientv3.WithCreatedNotify())
	<-watch

	start := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 6*time.Second {
		t.Errorf("stopping took %s while a client watched", d)
	} else {
		t.Logf("stopping took %s", d)
	}

	if old, err := net.Listen("tcp", strings.TrimPrefix(first.Endpoint(), "http://")); err == nil {
		defer old.Close() // or the second might get the first one's port
	}
	o.Listen = "http://0.0.0.0:0"
	start = time.Now()
	second, stop := run(t, o)
	t.Logf("starting took %s", time.Since(start))
	if !strings.HasPrefix(second.Endpoint(), "http://127.0.0.1:") || second.Endpoint() == first.Endpoint() {
		t.Errorf("endpoint %s after %s", second.Endpoint(), first.Endpoint())
	}
	if got := get(t, dial(t, second.Endpoint()), "/k"); got != "v" {
		t.Errorf("the data of the first run is %q", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(log.String()) {
		if !slow.MatchString(line) {
			t.Errorf("warning: %s", line)
		}
	}
	if err := second.Run(t.Context()); err == nil {
		t.Error("a server can run twice")
	}
}

// Each set of data is a cluster of its own.
func TestClusterIdentity(t *testing.T) {
	ids := map[uint64]bool{}
	for range 2 {
		s, _ := run(t, Options{Dir: t.TempDir(), Listen: anyPort})
		got, err := dial(t, s.Endpoint()).Get(t.Context(), "/k")
		if err != nil {
			t.Fatal(err)
		}
		ids[got.Header.ClusterId] = true
	}
	if len(ids) != 2 {
		t.Errorf("two servers share the cluster ID %v", ids)
	}
}

// TestKilled kills a process that serves etcd while it writes, and reads
// everything that it had confirmed.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveIn+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var endpoint string
	if _, err := fmt.Fscanln(out, &endpoint); err != nil {
		t.Fatalf("read the endpoint: %v", err)
	}
	c := dial(t, endpoint)
	for i := range 50 {
		put(t, c, fmt.Sprintf("/k/%d", i), "v")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
	s, _ := run(t, Options{Dir: dir, Listen: anyPort})
	again := dial(t, s.Endpoint())
	for i := range 50 {
		if got := get(t, again, fmt.Sprintf("/k/%d", i)); got != "v" {
			t.Fatalf("key %d is %q", i, got)
		}
	}
}

// serveIn names, for the process that TestKilled kills, the folder to serve.
const serveIn = "EMBEDDED_ETCD_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(serveIn)
	if dir == "" {
		os.Exit(m.Run())
	}
	s := New(Options{Dir: dir, Listen: anyPort})
	go func() {
		<-s.Ready()
		fmt.Println(s.Endpoint())
	}()
	fmt.Fprintln(os.Stderr, s.Run(context.Background()))
	os.Exit(1)
}

func TestCannotListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, listen := range map[string]string{
		"port in use":        "http://" + taken.Addr().String(),
		"no address of ours": "http://192.0.2.1:2379",
	} {
		t.Run(name, func(t *testing.T) {
			err := New(Options{Dir: t.TempDir(), Listen: listen}).Run(t.Context())
			if err == nil {
				t.Fatal("it runs")
			}
			for _, want := range []string{listen, "set ETCD_LISTEN to"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			t.Log(err)
		})
	}
}

// Data that etcd cannot read ends Run, not the process, each time anew.
func TestBrokenData(t *testing.T) {
	for _, c := range []struct {
		name string
		file string
		at   int64 // overwritten from here on
		size int
	}{
		{"database", "snap/db", 0, 1 << 14},
		{"log", "wal/*.wal", 0, 1 << 14},
		{"record in the log", "wal/*.wal", 300, 8},
		{"the log's first half", "wal/*.wal", 304, 1 << 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s, stop := run(t, Options{Dir: dir, Listen: anyPort})
			for i := range 20 {
				put(t, dial(t, s.Endpoint()), fmt.Sprint(i), strings.Repeat("v", 100))
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			damage(t, dir+"/member/"+c.file, c.at, c.size)
			for range 2 {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				err := New(Options{Dir: dir, Listen: s.Endpoint()}).Run(ctx)
				if err == nil || !strings.Contains(err.Error(), "data in "+dir+": the data cannot be used") {
					t.Fatalf("error %v", err)
				}
				t.Log(err)
			}
		})
	}
}

func damage(t *testing.T, pattern string, at int64, size int) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v: %v", files, err)
	}
	f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(bytes.Repeat([]byte{0x55}, size), at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestDataInUse(t *testing.T) {
	dir := t.TempDir()
	run(t, Options{Dir: dir, Listen: anyPort})
	err := New(Options{Dir: dir, Listen: anyPort}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "in use by another") {
		t.Fatalf("error %v", err)
	}
}

func TestListen(t *testing.T) {
	for listen, ok := range map[string]bool{
		"http://10.0.0.1:2379":     true,
		"http://10.0.0.1:2379/":    true,
		"http://0.0.0.0:2379":      true,
		"http://[fd00::1]:2379":    true,
		"":                         false,
		"10.0.0.1:2379":            false,
		"http://10.0.0.1":          false,
		"http://10.0.0.1:":         false,
		"https://10.0.0.1:2379":    true,
		"http://host:2379":         false,
		"http://10.0.0.1:2379/x":   false,
		"http://a:b@10.0.0.1:2379": false,
	} {
		_, err := parseListen(listen)
		if (err == nil) != ok {
			t.Errorf("%q: %v", listen, err)
		}
		if ok {
			continue
		}
		err = New(Options{Dir: t.TempDir(), Listen: listen}).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "ETCD_LISTEN="+strings.Replace(listen, "a:b@", "hidden@", 1)) || strings.Contains(err.Error(), "a:b") {
			t.Errorf("%q: error %v names no setting", listen, err)
		}
	}
	if err := New(Options{Listen: anyPort}).Run(t.Context()); err == nil {
		t.Error("a server without a directory")
	}
}

func TestEndpoint(t *testing.T) {
	for listen, want := range map[string]string{
		"http://10.0.0.1:2379":  "http://10.0.0.1:2379",
		"http://0.0.0.0:2379":   "http://127.0.0.1:2379",
		"http://[::]:2379":      "http://[::1]:2379",
		"http://[fd00::1]:2379": "http://[fd00::1]:2379",
	} {
		if got := New(Options{Dir: "d", Listen: listen}).Endpoint(); got != want {
			t.Errorf("%s: endpoint %s, want %s", listen, got, want)
		}
	}
}
