package plugin

import (
	"net/http"
	"strings"
	"time"
)

// measured tells how long the engine's calls took and whether they were refused.
func measured(next http.Handler, tell func(call string, took time.Duration, refused bool)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		m := &meter{ResponseWriter: w}
		next.ServeHTTP(m, r)
		call := strings.TrimPrefix(r.URL.Path, "/")
		if call == "Plugin.Activate" {
			return // /healthz asks it too
		}
		if m.status == http.StatusNotFound || m.status == http.StatusMethodNotAllowed {
			call = "unknown" // whoever calls chooses the path
		}
		tell(call, time.Since(began), m.refused)
	})
}

// meter is an answer that remembers what it was.
type meter struct {
	http.ResponseWriter
	status  int
	refused bool // set by refuse
}

// WriteHeader remembers the status.
func (m *meter) WriteHeader(status int) {
	m.status = status
	m.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (m *meter) Unwrap() http.ResponseWriter { return m.ResponseWriter }
