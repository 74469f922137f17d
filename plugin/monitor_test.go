package plugin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// browse reads a page of a monitor.
func browse(t *testing.T, url string) (status int, text string) {
	t.Helper()
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// TestMonitor begins on a port that another has, and serves once it is free.
func TestMonitor(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	status := report.Status{Notes: []report.Finding{{Text: "etcd is away"}}}
	var dead error
	m := &monitor{
		addr: other.Addr().String(), metrics: newMetrics(), log: quietLog(),
		status: func() report.Status { return status }, recent: &ring{}, alive: func(context.Context) error { return dead },
	}
	m.metrics.status = m.status
	keeping(m.log, m.recent).Warn("a cable was pulled")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.run(ctx) }()
	awaitFault(t, m, true)
	if why := m.fault().Error(); !strings.Contains(why, "METRICS_LISTEN="+m.addr) || !strings.Contains(why, "in use") {
		t.Error(why)
	}
	other.Close()
	awaitFault(t, m, false)
	for _, c := range []struct {
		path   string
		status int
		says   string
	}{
		{"/metrics", 200, "flannel_ready 1"}, {"/healthz", 200, "ok\n"}, {"/readyz", 200, "ok\nnote: etcd is away\n"},
		{"/", 200, "<!doctype html>"}, {"/status.json", 200, `"Text":"etcd is away"`}, {"/status.json", 200, `"Text":"a cable was pulled"`},
		{"/index.html", 404, ""}, {"/flannel/v1/status", 404, ""},
	} {
		if got, text := browse(t, "http://"+m.addr+c.path); got != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %s, want %d with %q", c.path, got, text, c.status, c.says)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	dead, status.Problems = errors.New("the socket is gone"), []report.Finding{{Text: "the lease is lost"}}
	h := m.handler()
	for path, says := range map[string]string{"/healthz": "not ok: the socket is gone", "/readyz": "not ok: the lease is lost\nnote: etcd is away"} {
		if got, text := ask(t, h, "GET", path, "", nil); got != http.StatusServiceUnavailable || !strings.Contains(text, says) {
			t.Errorf("%s: %d %s", path, got, text)
		}
	}
}

// TestSocketsAreChecked is for /healthz: a socket that is not answered at is
// found, and named.
func TestSocketsAreChecked(t *testing.T) {
	dir := t.TempDir()
	d, err := listen(t.Context(), Paths{Managed: filepath.Join(dir, "a.sock"), Legacy: filepath.Join(dir, "b.sock")}, quietLog())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := d.check(short); err == nil || !strings.Contains(err.Error(), "b.sock") {
		t.Errorf("nobody serves, and the check says %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.serve(ctx, handler(t, rooms{})) }()
	if err := d.check(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// awaitFault waits until METRICS_LISTEN is not served, or is.
func awaitFault(t *testing.T, m *monitor, want bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for (m.fault() != nil) != want {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("fault %v", m.fault())
		}
	}
}
