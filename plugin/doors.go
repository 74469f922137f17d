package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// doors are the sockets that the engine calls at.
type doors struct{ listeners []net.Listener }

// listen opens both sockets. The second is left to whoever serves it already:
// the managed name works without it.
func listen(ctx context.Context, paths Paths, log *slog.Logger) (*doors, error) {
	managed, err := listenUnix(ctx, paths.Managed)
	if err != nil {
		return nil, err
	}
	d := &doors{[]net.Listener{managed}}
	legacy, err := listenUnix(ctx, paths.Legacy)
	if err != nil {
		log.Error("the plain driver name flannel does not lead here; docker-flannel:latest does", "error", err)
		return d, nil
	}
	d.listeners = append(d.listeners, legacy)
	return d, nil
}

// listenUnix listens in place of a socket that nobody serves any more: the
// engine takes a quarter of a minute for a call to a dead one.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: another process serves it; disable the other flannel plugin", path), conn.Close())
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	return l, nil
}

// serve answers calls until ctx ends, lets those under way finish, and removes
// the sockets.
func (d *doors) serve(ctx context.Context, h http.Handler) error {
	srv := server(h)
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range d.listeners {
		g.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		return srv.Shutdown(last)
	})
	return g.Wait()
}

// check asks at every socket what the engine asks first.
func (d *doors) check(ctx context.Context) error {
	var errs []error
	for _, path := range d.paths() {
		if err := knock(ctx, path); err != nil {
			errs = append(errs, fmt.Errorf("socket %s does not answer: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

func knock(ctx context.Context, path string) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/Plugin.Activate", nil)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", res.Status)
	}
	return nil
}

func (d *doors) paths() []string {
	out := make([]string, 0, len(d.listeners))
	for _, l := range d.listeners {
		out = append(out, l.Addr().String())
	}
	return out
}

// close removes the sockets; those that serve closed already are gone.
func (d *doors) close() {
	for _, l := range d.listeners {
		_ = l.Close() // closed by serve on the clean way out
	}
}
