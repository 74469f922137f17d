// Package embedded runs an etcd server of a single member inside this process,
// for clusters that have no etcd of their own. Its clients are the same as any
// other etcd's: overlay/etcd on every host, flanneld, etcdctl.
package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
)

// Options say where the server keeps its data and where it listens.
type Options struct {
	// Dir holds the data. It is made where it does not exist.
	Dir string
	// Listen is the URL that clients reach the server at, such as
	// http://10.0.0.1:2379: the setting ETCD_LISTEN. It may change between two
	// starts on the same data. Port 0 takes a free one.
	Listen string
	// CAFile, CertFile and KeyFile go with https: what clients' certificates are
	// checked against, and the server's own certificate and key. Without a
	// certificate no client is let in. Renewed files are used as they are found.
	CAFile, CertFile, KeyFile string
	// Log gets etcd's warnings; nil for nobody.
	Log *slog.Logger
}

// Server is an etcd server that New describes and Run runs.
type Server struct {
	dir      string
	listen   url.URL
	certs    certs
	wrong    error // with the options
	log      *slog.Logger
	ready    chan struct{}
	once     sync.Once
	port     string // that it listens at, once ready
	stopping atomic.Bool
}

// New makes a server. It starts nothing; Run says where the options are wrong.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	listen, err := parseListen(o.Listen)
	c := certs{ca: o.CAFile, cert: o.CertFile, key: o.KeyFile}
	if err == nil && listen.Scheme == "https" && !c.complete() {
		err = fmt.Errorf("ETCD_LISTEN=%s: give ETCD_CAFILE, ETCD_CERTFILE and ETCD_KEYFILE, too", o.Listen)
	}
	return &Server{dir: o.Dir, listen: listen, certs: c, wrong: err, log: o.Log, ready: make(chan struct{})}
}

// Ready is closed once the server answers clients.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Endpoint is the URL at which a client on this host reaches the server. Where
// Listen asks for a free port it is known from Ready on.
func (s *Server) Endpoint() string {
	u := s.listen
	ip, port := net.ParseIP(u.Hostname()), u.Port()
	select {
	case <-s.ready:
		port = s.port
	default:
	}
	switch {
	case !ip.IsUnspecified():
	case ip.To4() != nil:
		ip = net.IPv4(127, 0, 0, 1)
	default:
		ip = net.IPv6loopback
	}
	u.Host = net.JoinHostPort(ip.String(), port)
	return u.String()
}

// Run runs the server until ctx ends, and returns nil then. It can run once. An
// error names the setting to change where the address cannot be listened at.
func (s *Server) Run(ctx context.Context) error {
	err := errors.New("it ran before")
	s.once.Do(func() { err = s.run(ctx) })
	if err != nil {
		return fmt.Errorf("embedded etcd at %s, data in %s: %w", s.listen.String(), s.dir, err)
	}
	return nil
}

func (s *Server) run(ctx context.Context) error {
	if s.wrong != nil {
		return s.wrong
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	clients := make(chan *grpc.Server, 1)
	trusted, err := s.trusted()
	if err != nil {
		return err
	}
	cfg := s.config()
	cfg.ServiceRegister = func(g *grpc.Server) { clients <- g }
	etcd, err := start(cfg)
	if err != nil {
		return explain(err)
	}
	defer etcd.Close()
	select {
	case <-etcd.Server.ReadyNotify():
	case <-etcd.Server.StopNotify():
		return errStopped
	case err := <-etcd.Err():
		return err
	case <-ctx.Done():
		s.stopping.Store(true)
		return nil
	}
	_, s.port, _ = net.SplitHostPort(etcd.Clients[0].Addr().String())
	close(s.ready)
	renewed, stop := s.renewed(ctx, trusted)
	defer stop()
	select {
	case <-ctx.Done():
		s.stopping.Store(true)
		hangUp(<-clients)
		return nil
	case <-renewed:
		s.stopping.Store(true)
		hangUp(<-clients)
		return ErrRenewed
	case <-etcd.Server.StopNotify():
		return errStopped
	case err := <-etcd.Err():
		return err
	}
}

var errStopped = errors.New("the server stopped by itself")

// explain tells which setting to change where the server cannot listen.
func explain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "listen" {
		return fmt.Errorf("%w: set ETCD_LISTEN to a free port on an address of this host", err)
	}
	return err
}

// grace is how long calls of clients may take to end. Watches never do.
const grace = 500 * time.Millisecond

// hangUp ends the clients' connections. etcd itself would wait seven seconds
// for watches to end, more than the engine leaves a plugin to stop.
func hangUp(clients *grpc.Server) {
	stop := time.AfterFunc(grace, clients.Stop)
	defer stop.Stop()
	clients.GracefulStop()
}

// config is etcd's. Compared with its defaults: old revisions are compacted
// hourly, it listens for no peers, and its log goes to ours.
func (s *Server) config() *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "docker-flannel"
	cfg.Dir = s.dir
	cfg.ListenClientUrls = []url.URL{s.listen}
	cfg.AdvertiseClientUrls = []url.URL{s.listen}
	// The member's address among its peers is part of its identity and stays
	// what it was at the first start. It has none, and nobody listens there.
	cfg.ListenPeerUrls = nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:2380"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// Only counts where there is no data yet: each set of data is a cluster of
	// its own, so that clients can tell when one was replaced.
	cfg.InitialClusterToken = rand.Text()
	cfg.AutoCompactionMode = embed.CompactorModePeriodic
	cfg.AutoCompactionRetention = "1h"
	cfg.EnableGRPCGateway = false
	if s.listen.Scheme == "https" {
		cfg.ClientTLSInfo = s.certs.info()
	}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZap(s.log, &s.stopping))
	return cfg
}

// parseListen accepts what etcd can listen at.
func parseListen(text string) (url.URL, error) {
	u, err := url.Parse(text)
	if err == nil {
		if u.User != nil {
			u.User = url.User("hidden")
			text = u.String()
		}
		host, port, splitErr := net.SplitHostPort(u.Host)
		ip := net.ParseIP(host)
		if (u.Scheme == "http" || u.Scheme == "https") && splitErr == nil && ip != nil && port != "" && (u.Path == "" || u.Path == "/") &&
			u.User == nil && u.RawQuery == "" {
			u.Path = ""
			return *u, nil
		}
	}
	return url.URL{Opaque: text}, fmt.Errorf("ETCD_LISTEN=%s: a URL of an address of this host is accepted, such as http://10.0.0.1:2379", text)
}
