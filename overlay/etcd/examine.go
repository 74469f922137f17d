package etcd

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// lookTime bounds a connection, and the question for the version.
const lookTime = 3 * time.Second

// Examine asks every endpoint on its own, in the order given.
func Examine(ctx context.Context, o Options, prefix string) []report.Endpoint {
	out := make([]report.Endpoint, len(o.Endpoints))
	for i, url := range o.Endpoints {
		one := o
		one.Endpoints = []string{url}
		out[i] = examine(ctx, one, prefix)
	}
	return out
}

// examine reads a key, which is what the plugin needs of etcd, and asks for the
// version, whose answer is dated.
func examine(ctx context.Context, o Options, prefix string) report.Endpoint {
	e := report.Endpoint{URL: bare(o.Endpoints[0])}
	if err := connects(ctx, e.URL); err != nil {
		e.Error = err.Error()
		return e
	}
	client, err := Dial(o)
	if err != nil {
		e.Error = err.Error()
		return e
	}
	defer func() { _ = client.Close() }() // it was only read from
	k, err := newKeys(prefix, "")
	if err == nil {
		err = reads(ctx, client, k.config(), &e.Took)
	}
	if err != nil {
		e.Error = reason(err)
	}
	dated(ctx, o, &e)
	return e
}

// connects tells what the network says of a connection, which gRPC keeps to
// itself.
func connects(ctx context.Context, endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Port() == "" || !strings.HasPrefix(u.Scheme, "http") {
		return nil //nolint:nilerr // Dial says it
	}
	c, err := (&net.Dialer{Timeout: lookTime}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	return c.Close()
}

// reads times the second of two reads: the first also connects.
func reads(ctx context.Context, client *clientv3.Client, key string, took *time.Duration) error {
	for range 2 {
		began := time.Now()
		ctx, cancel := context.WithTimeout(ctx, callTimeout(client))
		_, err := client.Get(ctx, key, clientv3.WithKeysOnly())
		cancel()
		if err != nil {
			return err
		}
		*took = time.Since(began)
	}
	return nil
}

// reason is an error in words for who asked one endpoint.
func reason(err error) string {
	if Unreachable(err) {
		return "no answer: " + err.Error()
	}
	return err.Error()
}

// dated asks for the version over HTTP. That tells the server's time; an endpoint
// that speaks gRPC only leaves it untold.
func dated(ctx context.Context, o Options, e *report.Endpoint) {
	if strings.HasPrefix(e.URL, "unix") {
		return
	}
	conf, err := o.certs().config()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	began := time.Now()
	res, err := get(ctx, conf, e.URL+"/version")
	if err != nil {
		return
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	ended := time.Now()
	var said struct {
		Version string `json:"etcdserver"`
	}
	if json.NewDecoder(io.LimitReader(res.Body, 1<<16)).Decode(&said) == nil {
		e.Version = said.Version
	}
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil {
		// The date has no parts of a second: half of one is the best guess.
		here := began.Add(ended.Sub(began) / 2)
		e.Dated, e.Ahead = true, date.Add(time.Second/2).Sub(here).Round(time.Second)
	}
}

func get(ctx context.Context, conf *tls.Config, address string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	return client.Do(req)
}

// bare is an endpoint as a URL without a user name.
func bare(endpoint string) string {
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return "(not a URL)"
	}
	u.User = nil
	return strings.TrimSuffix(u.String(), "/")
}

// Forget deletes the lease of a host that is gone for good. That it is gone is
// the caller's to know.
func (s *Store) Forget(ctx context.Context, network string, l report.ClusterLease) error {
	k, err := newKeys(s.prefix, network)
	if err != nil {
		return err
	}
	if l.Reserved {
		return fmt.Errorf("lease %s is reserved: delete it with: etcdctl del '%s'", l.Subnet, k.lease(l.Subnet, l.IPv6Subnet))
	}
	if err := s.forget(ctx, k, l); err != nil {
		return s.wrap(err, "delete lease %s of host %s", l.Subnet, l.PublicIP)
	}
	return nil
}

// forget finds the lease by its IPv4 subnet: its key may name an IPv6 one too.
func (s *Store) forget(ctx context.Context, k keys, l report.ClusterLease) error {
	st, err := s.read(ctx, k)
	if err != nil {
		return err
	}
	for _, kv := range st.subnets {
		h, err := decodeHeld(k, kv)
		if err == nil && h.valueErr == nil && h.lease.Subnet == l.Subnet && h.lease.PublicIP == l.PublicIP {
			return s.release(ctx, k, h.lease)
		}
	}
	return overlay.ErrLeaseLost
}

// Text is every key below the prefix with its value, one a line: flannel's
// configs and leases hold no secret.
func (s *Store) Text(ctx context.Context) (string, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	got, err := s.client.Get(ctx, path.Join(s.prefix)+"/", clientv3.WithPrefix())
	if err != nil {
		return "", s.wrap(err, "read the keys below %s", s.prefix)
	}
	var b strings.Builder
	for _, kv := range got.Kvs {
		fmt.Fprintf(&b, "%s %s\n", kv.Key, kv.Value)
	}
	return b.String(), nil
}
