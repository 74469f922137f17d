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
	"strings"
	"time"
)

const (
	contentType = "application/vnd.docker.plugins.v1.2+json"
	// deadline bounds every call, and the time that its body may take: the
	// engine itself waits without end after a boot.
	deadline = 8 * time.Second
	// maxBody bounds a call's body, maxError the text of an error, in bytes.
	maxBody  = 1 << 20
	maxError = 4 << 10
)

// failure is an error in the form that both drivers' clients in the engine
// read: the network's takes Err, the address manager's Error.
type failure struct{ Err, Error string }

// none is a request or an answer without fields.
type none struct{}

// calls are what the engine can ask, by path. http.ServeMux would answer an
// untidy path with a redirection, which is no JSON.
type calls map[string]http.HandlerFunc

func (c calls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	serve, known := c[r.URL.Path]
	switch {
	case !known:
		refuse(w, http.StatusNotFound, fmt.Errorf("%.80q is not a call of this plugin; Docker's NetworkDriver and IpamDriver calls are", r.URL.Path))
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, fmt.Errorf("%s with the method %.20q: use POST", r.URL.Path, r.Method))
	default:
		// A body that never comes must not hold the connection for ever. In
		// tests there may be no connection.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(deadline))
		serve(w, r)
	}
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
func ignore[Req any](c calls, log *slog.Logger, path string) {
	handle(c, log, path, func(context.Context, *Req) (*none, error) { return &none{}, nil })
}

// plain serves a call that carries no fields and always has one answer.
func plain(c calls, path string, res any) {
	c[path] = func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, res) }
}

// handle serves a call that carries fields.
func handle[Req, Res any](c calls, log *slog.Logger, path string, f func(context.Context, *Req) (*Res, error)) {
	c[path] = func(w http.ResponseWriter, r *http.Request) {
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
	}
}

// decode reads a body that must be there: a retry after a lost connection
// comes with an empty one, and must not be taken for a call.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return fmt.Errorf("the call's body is larger than %d bytes: give fewer or shorter options", large.Limit)
	}
	if err != nil {
		return fmt.Errorf("read the call's body: %w; try again", err)
	}
	// The call may take longer than its body: see ServeHTTP.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	body = bytes.TrimSpace(body)
	if len(body) == 0 || bytes.Equal(body, []byte("null")) {
		return errors.New("the call's body is empty; the engine lost its connection to the plugin: try again")
	}
	if err := json.Unmarshal(body, into); err != nil {
		return misread(err)
	}
	return nil
}

// misread says what a body holds instead of what Docker sends.
func misread(err error) error {
	wrong := (*json.UnmarshalTypeError)(nil)
	if !errors.As(err, &wrong) {
		return fmt.Errorf("the call's body is not JSON: %w; it may have been cut short: try again", err)
	}
	what := "the call's body"
	if wrong.Field != "" {
		what = "field " + wrong.Field
	}
	return fmt.Errorf("%s is a JSON %s, which is not what Docker sends there (%s): correct the call", what, wrong.Value, wrong.Type)
}

// refuse answers with an error. The middle of a very long one is left out.
func refuse(w http.ResponseWriter, status int, err error) {
	if m, ok := w.(*meter); ok {
		m.refused = true
	}
	text := err.Error()
	if len(text) > maxError {
		text = strings.ToValidUTF8(text[:maxError/2], "") + " ... " + strings.ToValidUTF8(text[len(text)-maxError/2:], "")
	}
	answer(w, status, failure{text, text})
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
				status := http.StatusOK // which the engine does not repeat
				if strings.HasPrefix(r.URL.Path, operatorPath) {
					status = http.StatusInternalServerError
				}
				refuse(w, status, fmt.Errorf("%s: internal error: %v; the plugin's log has more", r.URL.Path, p))
			}
		}()
		next.ServeHTTP(w, r)
	})
}
