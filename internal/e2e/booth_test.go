//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// strike is the death of the plugin at one step of the engine's calls: before
// the call has reached it, or with the answer on its way.
type strike struct {
	call  string // as CreateEndpoint
	after bool
}

func (s strike) String() string {
	if s.after {
		return "after " + s.call
	}
	return "before " + s.call
}

// settling is how long a started plugin is left alone. The engine looks for its
// socket half a second after the start; of one that has died by then it learns a
// quarter of a minute later, and disables it.
const settling = 2500 * time.Millisecond

// booth stands between a host's engine and its plugin, in place of the socket by
// which -d flannel leads there, and kills the plugin in the middle of calls. The
// engine cannot tell: connections break off, then a new process serves.
type booth struct {
	t           testing.TB
	h           *netlab.Host
	front, back string // the sockets of engine and plugin, as seen from outside

	mu     sync.Mutex // held during a kill
	open   *http.Server
	since  time.Time // when the plugin began to serve
	due    []strike
	struck int
}

// putBooth puts a booth on a host for the length of a test.
func putBooth(t testing.TB, h *netlab.Host) *booth {
	t.Helper()
	b := &booth{t: t, h: h, front: legacySocket(h), back: h.Root() + "/run/behind.sock"}
	if err := b.step(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.remove)
	return b
}

// legacySocket is the plugin's plain socket on a host, as seen from outside.
func legacySocket(h *netlab.Host) string { return h.Root() + "/run/docker/plugins/flannel.sock" }

// step takes the plugin's socket away and serves in its place.
func (b *booth) step() error {
	if err := os.Rename(b.front, b.back); err != nil {
		return err
	}
	l, err := net.Listen("unix", b.front)
	if err != nil {
		return err
	}
	b.open = &http.Server{ReadHeaderTimeout: time.Minute}
	b.open.Handler = b.handler(b.open)
	b.since = time.Now()
	go func() { _ = b.open.Serve(l) }() // says that it was closed
	return nil
}

// remove lets the engine to the plugin again.
func (b *booth) remove() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := errors.Join(b.open.Close(), os.Rename(b.back, b.front)); err != nil {
		b.t.Error(err)
	}
	b.open = nil
}

// order has the plugin die once at each of these steps, at one of the next calls
// that come to it.
func (b *booth) order(strikes ...strike) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.due = append(b.due, strikes...)
}

// tally is how many strikes have fallen, and which are due.
func (b *booth) tally() (struck int, due []strike) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.struck, slices.Clone(b.due)
}

// handler passes the calls on. What goes wrong breaks the engine's connection.
func (b *booth) handler(srv *http.Server) http.Handler {
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "plugin" },
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", b.back)
			},
		},
		ModifyResponse: func(r *http.Response) error { return b.meet(srv, r.Request, true) },
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.meet(srv, r, false) != nil {
			panic(http.ErrAbortHandler)
		}
		pass.ServeHTTP(w, r)
	})
}

var errStruck = errors.New("the plugin was killed")

// meet kills the plugin if that is due at this step. Calls that were under way
// in a process that was killed meanwhile end with it.
func (b *booth) meet(srv *http.Server, r *http.Request, after bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open != srv {
		return errStruck
	}
	i := slices.Index(b.due, strike{strings.TrimPrefix(path.Ext(r.URL.Path), "."), after})
	if i < 0 || time.Since(b.since) < settling {
		return nil
	}
	b.due = slices.Delete(b.due, i, i+1)
	b.struck++
	if err := b.kill(); err != nil {
		b.t.Error(err)
	}
	return errStruck
}

// kill ends the plugin with all its connections, and goes between the engine
// and the next one as soon as that serves.
func (b *booth) kill() error {
	if err := b.open.Close(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := b.h.Exec(ctx, "sh", "-c", "kill -9 $(pidof flannel)"); err != nil {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		// Its mode is the last thing that the plugin changes on it.
		about, err := os.Stat(b.front)
		if err == nil && about.Mode().Perm() == 0o600 {
			return b.step()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the plugin's return on %s: %w", b.h.Name(), errors.Join(ctx.Err(), err))
		}
	}
}
