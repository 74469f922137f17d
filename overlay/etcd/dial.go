package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
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

	// Username goes with Password, or with PasswordFile, which is read each
	// time that the client signs in.
	Username, Password, PasswordFile string

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
	if err := o.check(secure); err != nil {
		return nil, err
	}
	dialTimeout := orDefault(o.DialTimeout, defaultDialTimeout)
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = 100*time.Millisecond, maxRedial
	id := identity{newHandshake(o.certs(), secure), o.Username}
	ctx := context.WithValue(context.Background(), callTimeoutKey{}, o.CallTimeout)
	ctx = context.WithValue(ctx, identityKey{}, id)
	dialing := append(newSession(o.Username, o.password()).options(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: dialTimeout}),
		grpc.WithTransportCredentials(id.hand),
	)
	if !strings.HasPrefix(o.Endpoints[0], "unix") {
		l := newLines(id.hand.trouble)
		ctx = context.WithValue(ctx, linesKey{}, l)
		dialing = append(dialing, grpc.WithContextDialer(l.dial))
	}
	cfg := clientv3.Config{
		Endpoints:            o.Endpoints,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		Context:              ctx,
		Logger:               zap.NewNop(),
		DialOptions:          dialing,
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client for etcd %s: %w", strings.Join(o.Endpoints, ","), err)
	}
	return client, nil
}

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
		stray := err == nil && u.User == nil && strings.Contains(e, "@") // a password may stand before it
		if err != nil || stray || u.Host+u.Path == "" || u.RawQuery != "" || u.Fragment != "" {
			return false, fmt.Errorf("etcd endpoint %d of %d is not a URL such as http://10.0.0.1:2379", i+1, len(endpoints))
		}
		if u.User != nil {
			return false, fmt.Errorf("etcd endpoint %s holds a user name: give it as ETCD_USERNAME, and its password in ETCD_PASSWORD_FILE", u.Host)
		}
		switch u.Scheme {
		case "http", "https", "unix", "unixs":
		default:
			return false, fmt.Errorf("etcd endpoint %q: http, https, unix and unixs are accepted", e)
		}
		encrypted := strings.HasSuffix(u.Scheme, "s")
		if i > 0 && encrypted != secure {
			return false, fmt.Errorf("etcd endpoints %s are partly encrypted: all or none is accepted", strings.Join(endpoints[:i+1], ","))
		}
		secure = encrypted
		if local := strings.HasPrefix(u.Scheme, "unix"); i > 0 && local != strings.HasPrefix(endpoints[0], "unix") {
			return false, fmt.Errorf("etcd endpoints %s are partly sockets of this host: all or none is accepted", strings.Join(endpoints[:i+1], ","))
		}
	}
	return secure, nil
}
