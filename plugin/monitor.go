package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/docker-flannel/docker-flannel/internal/page"
	"github.com/docker-flannel/docker-flannel/internal/report"
)

// monitor serves the setting METRICS_LISTEN: the status page, the numbers, and
// whether the plugin lives and is ready.
type monitor struct {
	addr    string // empty for none
	metrics *metrics
	status  func() report.Status
	recent  *ring // of the log
	// alive tells what of the process does not work although it runs.
	alive func(ctx context.Context) error
	log   *slog.Logger

	mu  sync.Mutex
	why error // why it does not serve
}

// run serves until ctx ends. The address may be another's or not be there yet:
// then it tries again.
func (m *monitor) run(ctx context.Context) error {
	if m.addr == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	reported := ""
	for {
		err := m.serve(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = fmt.Errorf("setting METRICS_LISTEN=%s: %w", m.addr, err)
		m.set(err)
		if err.Error() != reported {
			reported = err.Error()
			m.log.Warn("metrics not served, trying on", "error", err)
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *monitor) set(why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.why = why
}

// fault is why METRICS_LISTEN is not served, nil while it is or is off.
func (m *monitor) fault() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.why
}

const (
	// monitorConns is how many connections METRICS_LISTEN has at once, and
	// monitorIdle how long one may wait between requests.
	monitorConns = 64
	monitorIdle  = 30 * time.Second
)

func (m *monitor) serve(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", m.addr)
	if err != nil {
		return err
	}
	m.set(nil)
	m.log.Info("serving metrics", "address", l.Addr())
	// Anybody may come here: nobody holds what the engine's sockets need.
	l = netutil.LimitListener(l, monitorConns)
	srv := &http.Server{
		Handler: m.handler(), ReadTimeout: deadline, WriteTimeout: deadline, IdleTimeout: monitorIdle,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug), // what strangers do
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return srv.Serve(l) })
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	if err := g.Wait(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

func (m *monitor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", page.Handler(func() page.View {
		return page.View{Now: time.Now(), Status: m.status(), Events: page.Events(m.recent.all())}
	}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.metrics.registry(), promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", m.health)
	mux.HandleFunc("GET /readyz", m.ready)
	return mux
}

// health tells whether the process works: its sockets answer and its loop runs.
func (m *monitor) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	var faults []report.Finding
	if err := m.alive(ctx); err != nil {
		faults = append(faults, report.Finding{Text: err.Error()})
	}
	tell(w, faults, nil)
}

// ready tells whether the host does its part.
func (m *monitor) ready(w http.ResponseWriter, _ *http.Request) {
	s := m.status()
	tell(w, s.Problems, s.Notes)
}

// tell answers 200 without problems and 503 with them, each on a line.
func tell(w http.ResponseWriter, problems, notes []report.Finding) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if len(problems) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	} else {
		_, _ = io.WriteString(w, "ok\n") // whoever asked hung up
	}
	for _, p := range problems {
		_, _ = fmt.Fprintf(w, "not ok: %s\n", p.Text)
	}
	for _, n := range notes {
		_, _ = fmt.Fprintf(w, "note: %s\n", n.Text)
	}
}
