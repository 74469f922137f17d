package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/docker-flannel/docker-flannel/driver"
	clerk "github.com/docker-flannel/docker-flannel/ipam"
)

const (
	contentType = "application/vnd.docker.plugins.v1.2+json"
	manifest    = `{"Implements":["NetworkDriver","IpamDriver"]}`
	// deadline bounds every call: the engine itself waits without end after a
	// boot.
	deadline = 8 * time.Second
	// maxBody bounds a call's body, in bytes.
	maxBody = 1 << 20
)

// failure is an error in the form that both drivers' clients in the engine
// read: the network's takes Err, the address manager's Error.
type failure struct{ Err, Error string }

// none is a request or an answer without fields.
type none struct{}

// routes is the door that the engine calls at.
func routes(drv *driver.Clerk, addrs *clerk.Clerk, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/Plugin.Activate", activate)

	plain(mux, log, "/NetworkDriver.GetCapabilities", drv.Capabilities())
	handle(mux, log, "/NetworkDriver.CreateNetwork", quiet(drv.CreateNetwork))
	handle(mux, log, "/NetworkDriver.DeleteNetwork", quiet(drv.DeleteNetwork))
	handle(mux, log, "/NetworkDriver.CreateEndpoint", drv.CreateEndpoint)
	handle(mux, log, "/NetworkDriver.DeleteEndpoint", quiet(drv.DeleteEndpoint))
	handle(mux, log, "/NetworkDriver.EndpointOperInfo", drv.EndpointInfo)
	handle(mux, log, "/NetworkDriver.Join", drv.Join)
	handle(mux, log, "/NetworkDriver.Leave", quiet(drv.Leave))
	// The engine's own docker_gwbridge publishes ports, and nothing is
	// learnt from the engine about other hosts.
	ignore[network.ProgramExternalConnectivityRequest](mux, log, "/NetworkDriver.ProgramExternalConnectivity")
	ignore[network.RevokeExternalConnectivityRequest](mux, log, "/NetworkDriver.RevokeExternalConnectivity")
	ignore[network.DiscoveryNotification](mux, log, "/NetworkDriver.DiscoverNew")
	ignore[network.DiscoveryNotification](mux, log, "/NetworkDriver.DiscoverDelete")

	plain(mux, log, "/IpamDriver.GetCapabilities", addrs.Capabilities())
	plain(mux, log, "/IpamDriver.GetDefaultAddressSpaces", addrs.AddressSpaces())
	handle(mux, log, "/IpamDriver.RequestPool", addrs.RequestPool)
	handle(mux, log, "/IpamDriver.ReleasePool", quiet(addrs.ReleasePool))
	handle(mux, log, "/IpamDriver.RequestAddress", addrs.RequestAddress)
	handle(mux, log, "/IpamDriver.ReleaseAddress", quiet(addrs.ReleaseAddress))

	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, fmt.Errorf("%s is not a call of this plugin", r.URL.Path))
	})
	return guard(log, mux)
}

// broken answers every call with why the plugin cannot work, so that the
// engine's user reads it instead of waiting.
func broken(why error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/Plugin.Activate", activate)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusOK, why) })
	return mux
}

func activate(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", contentType)
	_, _ = io.WriteString(w, manifest) // the engine hung up; nothing to tell it
}

// quiet gives a call without an answer an empty one.
func quiet[Req any](f func(context.Context, *Req) error) func(context.Context, *Req) (*none, error) {
	return func(ctx context.Context, req *Req) (*none, error) { return &none{}, f(ctx, req) }
}

// ignore accepts a well-formed call and does nothing.
func ignore[Req any](mux *http.ServeMux, log *slog.Logger, path string) {
	handle(mux, log, path, func(context.Context, *Req) (*none, error) { return &none{}, nil })
}

// plain serves a call that carries no fields and always has one answer.
func plain(mux *http.ServeMux, log *slog.Logger, path string, res any) {
	mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, res) })
	log.Debug("serving", "call", path)
}

// handle serves a call that carries fields.
func handle[Req, Res any](mux *http.ServeMux, log *slog.Logger, path string, f func(context.Context, *Req) (*Res, error)) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		req := new(Req)
		if err := decode(w, r, req); err != nil {
			refuse(w, http.StatusBadRequest, fmt.Errorf("%s: %w", path, err))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), deadline)
		defer cancel()
		res, err := f(ctx, req)
		log.Debug("call", "path", path, "request", req, "took", time.Since(begin), "error", err)
		if err != nil {
			refuse(w, http.StatusOK, err)
			return
		}
		answer(w, http.StatusOK, res)
	})
}

// decode reads a body that must be there: a retry after a lost connection
// comes with an empty one, and must not be taken for a call.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return fmt.Errorf("read the call's body: %w", err)
	}
	body = bytes.TrimSpace(body)
	if len(body) == 0 || bytes.Equal(body, []byte("null")) {
		return errors.New("the call's body is empty; the engine lost its connection to the plugin: try again")
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read the call's body: %w", err)
	}
	return nil
}

func refuse(w http.ResponseWriter, status int, err error) {
	answer(w, status, failure{err.Error(), err.Error()})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the engine hung up; nothing to tell it
}

// guard turns a panic into an error: the engine would retry a lost connection
// for a quarter of a minute.
func guard(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				log.Error("panic in a call", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				refuse(w, http.StatusOK, fmt.Errorf("%s: internal error: %v", r.URL.Path, p))
			}
		}()
		next.ServeHTTP(w, r)
	})
}
