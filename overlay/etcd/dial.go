package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Options say how to reach an etcd cluster.
type Options struct {
	Endpoints []string // URLs, or host:port

	// CAFile holds the PEM certificates that the server's is checked with;
	// without it the system's are used, where an endpoint is https.
	CAFile string
	// CertFile and KeyFile are the client's certificate, both or neither.
	CertFile, KeyFile string

	Username, Password string // both or neither

	DialTimeout time.Duration // of one attempt to connect; 5 s if zero
	CallTimeout time.Duration // of one call of a Store; DefaultCallTimeout if zero
}

const (
	defaultDialTimeout = 5 * time.Second
	// A connection that is silent for keepAliveTime is pinged, and given up
	// when there is no answer in keepAliveTimeout. etcd cuts clients off that
	// ping more often than every 5 s (--grpc-keepalive-min-time).
	keepAliveTime    = 10 * time.Second
	keepAliveTimeout = 5 * time.Second
	// maxRedial bounds the wait between two attempts to connect; gRPC's own
	// bound is two minutes, too long after an outage.
	maxRedial = 5 * time.Second
)

// Dial makes a client for the cluster. It does not wait for it: it fails only
// where the options are wrong or a file cannot be read. The caller closes the
// client.
func Dial(o Options) (*clientv3.Client, error) {
	secure, err := checkEndpoints(o.Endpoints)
	if err != nil {
		return nil, err
	}
	if (o.Username == "") != (o.Password == "") {
		return nil, errors.New("etcd needs a user name and a password, or neither")
	}
	conf, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	if conf != nil && !secure {
		return nil, fmt.Errorf("etcd endpoints %s are not encrypted, although certificate files are given: https:// is accepted",
			strings.Join(o.Endpoints, ","))
	}
	if conf == nil && secure {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	dialTimeout := orDefault(o.DialTimeout, defaultDialTimeout)
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = 100*time.Millisecond, maxRedial
	ctx := context.WithValue(context.Background(), callTimeoutKey{}, o.CallTimeout)
	dialing := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: dialTimeout}),
	}
	if !strings.HasPrefix(o.Endpoints[0], "unix") {
		l := newLines()
		ctx = context.WithValue(ctx, linesKey{}, l)
		dialing = append(dialing, grpc.WithContextDialer(l.dial))
	}
	cfg := clientv3.Config{
		Endpoints:            o.Endpoints,
		TLS:                  conf,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		Context:              ctx,
		Logger:               zap.NewNop(),
		DialOptions:          dialing,
	}
	if o.Username != "" {
		cfg.Token = pendingToken
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client for etcd %s: %w", strings.Join(o.Endpoints, ","), err)
	}
	if o.Username != "" {
		client.Token, client.Username, client.Password = "", o.Username, o.Password
	}
	return client, nil
}

// pendingToken stands in for the token that the client gets for its user name
// and password. With those in its config clientv3.New would wait for the server
// to answer; with a token it does not, and asks for a new one as soon as the
// server refuses this.
const pendingToken = "pending"

// callTimeoutKey finds Options.CallTimeout in the client's context, so that a
// Store made of the client keeps to it.
type callTimeoutKey struct{}

func callTimeout(client *clientv3.Client) time.Duration {
	d, _ := client.Ctx().Value(callTimeoutKey{}).(time.Duration)
	return orDefault(d, DefaultCallTimeout)
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d <= 0 {
		return fallback
	}
	return d
}

// checkEndpoints refuses what the client would misunderstand, and tells whether
// the endpoints are encrypted. A URL with a password in it is refused without
// being repeated.
func checkEndpoints(endpoints []string) (secure bool, err error) {
	if len(endpoints) == 0 {
		return false, errors.New("no etcd endpoint is given: URLs such as http://10.0.0.1:2379 are accepted")
	}
	for i, e := range endpoints {
		text := e
		if !strings.Contains(e, "://") {
			text = "http://" + e
		}
		u, err := url.Parse(text)
		if err != nil || u.Host+u.Path == "" || u.RawQuery != "" {
			return false, fmt.Errorf("etcd endpoint %d of %d is not a URL such as http://10.0.0.1:2379", i+1, len(endpoints))
		}
		if u.User != nil {
			return false, fmt.Errorf("etcd endpoint %s holds a user name: give it as a setting of its own", u.Host)
		}
		switch u.Scheme {
		case "http", "https", "unix", "unixs":
		default:
			return false, fmt.Errorf("etcd endpoint %q: http, https, unix and unixs are accepted", e)
		}
		encrypted := strings.HasSuffix(u.Scheme, "s")
		if i > 0 && encrypted != secure {
			return false, fmt.Errorf("etcd endpoints %s are partly encrypted: all or none is accepted", strings.Join(endpoints, ","))
		}
		secure = encrypted
		if local := strings.HasPrefix(u.Scheme, "unix"); i > 0 && local != strings.HasPrefix(endpoints[0], "unix") {
			return false, fmt.Errorf("etcd endpoints %s are partly sockets of this host: all or none is accepted", strings.Join(endpoints, ","))
		}
	}
	return secure, nil
}

// tlsConfig reads the certificate files; nil where none is given.
func tlsConfig(o Options) (*tls.Config, error) {
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, errors.New("etcd needs a certificate file and a key file, or neither")
	}
	if o.CAFile == "" && o.CertFile == "" {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read etcd's CA file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd's CA file %s holds no PEM certificate", o.CAFile)
		}
	}
	if o.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read etcd's client certificate %s and key %s: %w", o.CertFile, o.KeyFile, err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}
