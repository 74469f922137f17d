package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
)

func TestDialOptions(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	one := []string{"http://10.0.0.1:2379"}
	for _, c := range []struct {
		opt  Options
		want string
	}{
		{Options{}, "no etcd endpoint is given"},
		{Options{Endpoints: []string{""}}, "endpoint 1 of 1 is not a URL"},
		{Options{Endpoints: []string{"ftp://10.0.0.1:21"}}, `"ftp://10.0.0.1:21": http, https, unix`},
		{Options{Endpoints: []string{"http://a:secret@10.0.0.1:2379"}}, "10.0.0.1:2379 holds a user name"},
		{Options{Endpoints: []string{"http://10.0.0.1:secret"}}, "endpoint 1 of 1 is not a URL"},
		{Options{Endpoints: []string{one[0], "https://10.0.0.2:2379"}}, "partly encrypted"},
		{Options{Endpoints: one, Username: "a"}, "give a user name and a password, or neither"},
		{Options{Endpoints: one, Password: "secret"}, "give a user name and a password, or neither"},
		{Options{Endpoints: one, CertFile: "c"}, "give a certificate file and a key file, or neither"},
		{Options{Endpoints: one, CAFile: filepath.Join(dir, "none")}, "ETCD_CAFILE="},
		{Options{Endpoints: one, CAFile: empty}, " holds no PEM certificate: give"},
		{Options{Endpoints: one, CertFile: empty, KeyFile: empty}, "ETCD_CERTFILE="},
		{Options{Endpoints: one, CAFile: newCA(t, dir).file}, "http://10.0.0.1:2379 are not encrypted"},
	} {
		_, err := Dial(c.opt)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v, want %s", err, c.want)
		}
	}
	for _, e := range []string{"10.0.0.1:2379", "http://10.0.0.1:2379", "https://etcd:2379", "unix:///run/etcd.sock", "http://[fd00::1]:2379"} {
		c, err := Dial(Options{Endpoints: []string{e}, CallTimeout: time.Minute})
		if err != nil {
			t.Errorf("%s: %v", e, err)
			continue
		}
		if s := New(c, DefaultPrefix); s.callTimeout != time.Minute {
			t.Errorf("call timeout %s", s.callTimeout)
		}
		if s := New(c, DefaultPrefix, WithCallTimeout(time.Hour)); s.callTimeout != time.Hour {
			t.Errorf("call timeout %s", s.callTimeout)
		}
		c.Close()
	}
}

// Without a server Dial does not wait, and a call says why nobody answers.
func TestDialNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := "http://" + l.Addr().String()
	l.Close()
	start := time.Now()
	c, err := Dial(Options{Endpoints: []string{endpoint}, Username: "root", Password: "secret", CallTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if d := time.Since(start); d > time.Second {
		t.Errorf("Dial took %s", d)
	}
	s := New(c, DefaultPrefix)
	_, err = s.Config(t.Context(), "", nil)
	for _, want := range []string{"read the config of the default network", endpoint, "connection refused"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	t.Log(err)
	start = time.Now()
	if err := s.Keep(t.Context(), "blue", overlay.Lease{}); err == nil || time.Since(start) > 8*time.Second {
		t.Errorf("Keep: %v after %s", err, time.Since(start))
	}
}

// checkStore uses every kind of call: unary, the stream of Keep and the watch.
func checkStore(t *testing.T, s *Store) {
	t.Helper()
	if _, err := s.Config(t.Context(), "", fixed(stockConfig)); err != nil {
		t.Error(err)
		return
	}
	l, err := s.Claim(t.Context(), "", claimOf(1))
	if err != nil {
		t.Error(err)
		return
	}
	if err := s.Keep(t.Context(), "", l); err != nil {
		t.Error(err)
	}
	watch(t, s, "").await(t, "the lease", func(s overlay.Snapshot) bool { return len(s.Leases) == 1 })
}

func TestDialPassword(t *testing.T) {
	endpoint := startEmbedded(t)
	secured := func(user, password string) (*Store, *clientv3.Client) {
		c, err := Dial(Options{Endpoints: []string{endpoint}, Username: user, Password: password, CallTimeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return New(c, DefaultPrefix), c
	}
	// A password does no harm where none is asked for.
	early, admin := secured("root", "secret")
	checkStore(t, early)

	for _, err := range []error{
		fail(admin.RoleAdd(t.Context(), "root")),
		fail(admin.UserAdd(t.Context(), "root", "secret")),
		fail(admin.UserGrantRole(t.Context(), "root", "root")),
		fail(admin.AuthEnable(t.Context())),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	checkStore(t, early)
	good, _ := secured("root", "secret")
	checkStore(t, good)

	bad, _ := secured("root", "secret2")
	_, err := bad.Config(t.Context(), "", nil)
	if err == nil || !strings.Contains(err.Error(), "authentication failed") || strings.Contains(err.Error(), "secret") {
		t.Errorf("with a wrong password: %v", err)
	}
	if _, err := New(dial(t, endpoint), DefaultPrefix).Config(t.Context(), "", nil); err == nil {
		t.Error("without a password: no error")
	} else {
		t.Log(err)
	}
}

func fail[T any](_ T, err error) error { return err }

func TestDialTLS(t *testing.T) {
	dir := t.TempDir()
	ca, other := newCA(t, t.TempDir()), newCA(t, t.TempDir())
	ca.issue(t, dir, "server")
	ca.issue(t, dir, "client")
	plain := strings.TrimPrefix(startEmbedded(t), "http://")
	open := tlsProxy(t, plain, dir, nil)
	strict := tlsProxy(t, plain, dir, ca.pool())
	withCert := Options{CAFile: ca.file, CertFile: filepath.Join(dir, "client.pem"), KeyFile: filepath.Join(dir, "client.key")}
	for _, c := range []struct {
		name     string
		endpoint string
		opt      Options
		refused  string
	}{
		{"CA only", open, Options{CAFile: ca.file}, ""},
		{"client certificate", strict, withCert, ""},
		{"another CA", open, Options{CAFile: other.file}, "is not signed by ETCD_CAFILE="},
		{"the system's CAs", open, Options{}, "set ETCD_CAFILE"},
		{"no client certificate", strict, Options{CAFile: ca.file}, "wants a client certificate: set ETCD_CERTFILE and ETCD_KEYFILE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.opt.Endpoints = []string{c.endpoint}
			c.opt.CallTimeout = patience
			if c.refused != "" {
				c.opt.CallTimeout = time.Second
			}
			client, err := Dial(c.opt)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { client.Close() })
			s := New(client, DefaultPrefix)
			if c.refused == "" {
				checkStore(t, s)
				return
			}
			soonSays(t, c.name, func() error { return fail(s.Config(t.Context(), "", fixed(stockConfig))) }, c.refused)
			t.Log(err)
		})
	}
}

// tlsProxy listens with TLS before a server without; clients, where given, must
// show a certificate.
func tlsProxy(t *testing.T, target, dir string, clients *x509.CertPool) string {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}
	if clients != nil {
		conf.ClientCAs, conf.ClientAuth = clients, tls.RequireAndVerifyClientCert
	}
	p := newProxy(t, "http://"+target)
	p.cut()
	p.wrap = func(l net.Listener) net.Listener { return tls.NewListener(l, conf) }
	p.join(t)
	return "https://" + p.addr
}
