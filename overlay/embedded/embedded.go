// Package embedded runs an etcd server of one member inside the plugin, for
// clusters that have none of their own.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Options are what a Server is made of.
type Options struct {
	Dir    string // of the data
	Listen string // client URL, http://address:port
	Log    *slog.Logger
}

// Server is an embedded etcd.
type Server struct {
	opt   Options
	ready chan struct{}
}

const (
	// start bounds the time until the server answers.
	start = 30 * time.Second
	// keepHistory is how much of the past a slow watcher may catch up with.
	keepHistory = "1h"
	// peerSocket is a file in the working folder: etcd's URLs of unix sockets
	// have no room for a path.
	peerSocket = "etcd-peer.sock"
)

// New makes a Server; it starts nothing.
func New(opt Options) *Server { return &Server{opt: opt, ready: make(chan struct{})} }

// Ready is closed once the server answers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Endpoint is the URL at which a client on this host reaches the server.
func (s *Server) Endpoint() string {
	u, err := url.Parse(s.opt.Listen)
	if err != nil {
		return s.opt.Listen
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsUnspecified() {
		u.Host = net.JoinHostPort("127.0.0.1", u.Port())
	}
	return u.String()
}

// Run serves until ctx ends and then stops in good order. The error names the
// setting to change when the address cannot be listened on.
func (s *Server) Run(ctx context.Context) error {
	config, err := s.config()
	if err != nil {
		return fmt.Errorf("prepare the embedded etcd: %w", err)
	}
	server, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("start the embedded etcd on %s: %w; choose another address with the setting ETCD_LISTEN, or use an etcd of your own with ETCD_ENDPOINTS", s.opt.Listen, err)
	}
	defer server.Close()
	late := time.NewTimer(start)
	defer late.Stop()
	select {
	case <-server.Server.ReadyNotify():
		close(s.ready)
	case err := <-server.Err():
		return fmt.Errorf("start the embedded etcd on %s: %w", s.opt.Listen, err)
	case <-late.C:
		return fmt.Errorf("start the embedded etcd on %s: not ready within %s; its data is in %s", s.opt.Listen, start, s.opt.Dir)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-server.Err():
		return fmt.Errorf("embedded etcd on %s: %w", s.opt.Listen, err)
	case <-server.Server.StopNotify():
		return errors.New("the embedded etcd stopped")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// config is a cluster of one: its peer socket is a file, so no second port is
// needed, and its name does not depend on the address it listens on.
func (s *Server) config() (*embed.Config, error) {
	if err := os.MkdirAll(s.opt.Dir, 0o700); err != nil {
		return nil, err
	}
	client, err := url.Parse(s.opt.Listen)
	if err != nil {
		return nil, err
	}
	peer := url.URL{Scheme: "unix", Host: peerSocket}
	config := embed.NewConfig()
	config.Name = "embedded"
	config.Dir = filepath.Join(s.opt.Dir, "data")
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.Name + "=" + peer.String()
	config.AutoCompactionMode, config.AutoCompactionRetention = embed.CompactorModePeriodic, keepHistory
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(bridge{s.opt.Log}))
	return config, nil
}

// bridge passes etcd's errors on to the plugin's log; the rest is etcd's own
// affair.
type bridge struct{ log *slog.Logger }

func (bridge) Enabled(level zapcore.Level) bool { return level >= zapcore.ErrorLevel }

func (b bridge) With([]zapcore.Field) zapcore.Core { return b }

func (b bridge) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return c.AddCore(e, b)
	}
	return c
}

func (b bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	b.log.Warn("embedded etcd: "+e.Message, "details", enc.Fields)
	return nil
}

func (bridge) Sync() error { return nil }
