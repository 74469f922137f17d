// Package etcd is the Store on an etcd cluster, in stock flannel's layout
// (pkg/subnet/etcd of flannel 0.28): hosts with flanneld can share a network.
package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// Options say which cluster, and how to reach it.
type Options struct {
	Endpoints []string // client URLs
	Prefix    string   // of every key, without a trailing slash
	CAFile    string   // certificates that the servers' are checked against; empty for the system's
	CertFile  string   // client certificate and its key; both or neither
	KeyFile   string
	Username  string
	Password  string
	// DialTimeout bounds the making of a connection, CallTimeout every call.
	DialTimeout, CallTimeout time.Duration
}

// The connection is probed when nothing was heard for idleProbe, and given up
// when the probe is not answered within probeTimeout.
const (
	idleProbe    = 5 * time.Second
	probeTimeout = 3 * time.Second
)

// Store is an overlay.Store. It connects when it is first used.
type Store struct {
	opt Options
	tls *tls.Config

	mu     sync.Mutex
	client *clientv3.Client
	closed bool
}

var _ overlay.Store = (*Store)(nil)

// New makes a Store. It reads the certificates and contacts nobody.
func New(opt Options) (*Store, error) {
	secure, err := tlsConfig(opt)
	if err != nil {
		return nil, err
	}
	return &Store{opt: opt, tls: secure}, nil
}

// tlsConfig is nil where plain HTTP is spoken.
func tlsConfig(opt Options) (*tls.Config, error) {
	secure := opt.CAFile != "" || opt.CertFile != ""
	for _, endpoint := range opt.Endpoints {
		secure = secure || strings.HasPrefix(endpoint, "https://")
	}
	if !secure {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if opt.CAFile != "" {
		text, err := os.ReadFile(opt.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read etcd's CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read etcd's CA: %s holds no PEM certificate", opt.CAFile)
		}
	}
	if opt.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(opt.CertFile, opt.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate for etcd: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Close ends the connection.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.client == nil {
		return nil
	}
	return s.client.Close()
}

// connection makes the client at the first use: with a password the library
// asks for a token at once, which fails while etcd is down.
func (s *Store) connection() (*clientv3.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the connection is closed")
	}
	if s.client != nil {
		return s.client, nil
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: s.opt.Endpoints, TLS: s.tls, Username: s.opt.Username, Password: s.opt.Password,
		DialTimeout: s.opt.DialTimeout, DialKeepAliveTime: idleProbe, DialKeepAliveTimeout: probeTimeout,
		Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, err
	}
	s.client = client
	return client, nil
}

// call makes one call to etcd within the call's deadline; doing says what for.
func (s *Store) call(ctx context.Context, doing string, f func(context.Context, *clientv3.Client) error) error {
	client, err := s.connection()
	if err != nil {
		return s.explain(doing, err)
	}
	limited, cancel := context.WithTimeout(ctx, s.opt.CallTimeout)
	defer cancel()
	if err := f(limited, client); err != nil {
		if ctx.Err() == nil && limited.Err() != nil {
			err = fmt.Errorf("no answer within %s; check that it runs and that this host reaches it (%w)", s.opt.CallTimeout, err)
		}
		return s.explain(doing, err)
	}
	return nil
}

func (s *Store) explain(doing string, err error) error {
	return fmt.Errorf("%s in etcd at %s: %w", doing, strings.Join(s.opt.Endpoints, ","), err)
}

// Config reads a network's config, and creates it where there is none.
func (s *Store) Config(ctx context.Context, network string, initial []byte) (overlay.Config, error) {
	key := dir(s.opt.Prefix, network) + configKey
	var text []byte
	err := s.call(ctx, "read "+key, func(ctx context.Context, c *clientv3.Client) error {
		get := clientv3.OpGet(key)
		txn := c.Txn(ctx)
		if len(initial) > 0 {
			txn = txn.If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(clientv3.OpPut(key, string(initial)), get).Else(get)
		} else {
			txn = txn.Then(get)
		}
		res, err := txn.Commit()
		if err != nil {
			return err
		}
		found := res.Responses[len(res.Responses)-1].GetResponseRange().Kvs
		if len(found) == 0 {
			return overlay.ErrNoConfig
		}
		text = found[0].Value
		return nil
	})
	if err != nil {
		return overlay.Config{}, err
	}
	cfg, err := overlay.ParseConfig(text)
	if err != nil {
		return overlay.Config{}, s.explain("config "+key, err)
	}
	return cfg, nil
}

// Keep renews a lease's time to live.
func (s *Store) Keep(ctx context.Context, network string, lease overlay.Lease) error {
	doing := "renew the lease of " + lease.Subnet.String()
	return s.call(ctx, doing, func(ctx context.Context, c *clientv3.Client) error {
		e, err := s.mine(ctx, c, network, lease)
		if err != nil {
			return err
		}
		if e == nil {
			return overlay.ErrLeaseLost
		}
		return renew(ctx, c, e.etcdLease)
	})
}

// Release deletes a lease that is still this host's.
func (s *Store) Release(ctx context.Context, network string, lease overlay.Lease) error {
	doing := "give back the lease of " + lease.Subnet.String()
	for {
		again := false
		err := s.call(ctx, doing, func(ctx context.Context, c *clientv3.Client) error {
			e, err := s.mine(ctx, c, network, lease)
			if err != nil || e == nil || e.etcdLease == clientv3.NoLease {
				return err
			}
			res, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(e.key), "=", e.modified)).
				Then(clientv3.OpDelete(e.key)).Commit()
			if err != nil {
				return err
			}
			if again = !res.Succeeded; again {
				return nil
			}
			// The key is gone; what is left of the etcd lease ends by itself.
			_, _ = c.Revoke(ctx, e.etcdLease)
			return nil
		})
		if err != nil || !again {
			return err
		}
	}
}

// mine finds this host's entry for a subnet; nil when it is not there or
// another host's.
func (s *Store) mine(ctx context.Context, c *clientv3.Client, network string, lease overlay.Lease) (*entry, error) {
	base := dir(s.opt.Prefix, network) + subnetsDir
	res, err := c.Get(ctx, base+formatKey(lease.Subnet, lease.IPv6Subnet))
	if err != nil || len(res.Kvs) == 0 {
		return nil, err
	}
	e := newEntry(base, res.Kvs[0])
	if e.err != nil || e.lease.PublicIP != lease.PublicIP {
		return nil, nil //nolint:nilerr // a key that cannot be read is nobody's of ours
	}
	return &e, nil
}
