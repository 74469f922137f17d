//go:build lab

package etcd

import (
	"crypto/x509"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

func elsewhere(c *x509.Certificate) {
	c.IPAddresses, c.DNSNames = []net.IP{net.IPv4(10, 9, 8, 7)}, []string{"etcd.example"}
}

func noUse(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }

// TestWrongClients: whatever is wrong on the client's side, the error says what,
// where and what to do.
func TestWrongClients(t *testing.T) {
	c := newCastle(t)
	foreign := &castle{dir: t.TempDir()}
	other := newCA(t, foreign.dir)
	other.issue(t, foreign.dir, "host")
	for name, change := range map[string]func(*x509.Certificate){"expired": expired, "nouse": noUse} {
		c.ca.issue(t, c.dir, name, change)
	}
	c.write(t, "empty", "\n")
	c.write(t, "junk", "marker-secret")
	plain := "http" + strings.TrimPrefix(c.endpoint, "https")
	for _, w := range []struct {
		name   string
		change func(*Options)
		says   []string
	}{
		{"right", func(*Options) {}, nil},
		{"another CA", func(o *Options) { o.CAFile = foreign.file("ca.pem") }, []string{"not signed by ETCD_CAFILE=" + foreign.file("ca.pem"), "give the certificate of the CA"}},
		{"no CA", func(o *Options) { o.CAFile = "" }, []string{"set ETCD_CAFILE"}},
		{"no certificate", func(o *Options) { o.CertFile, o.KeyFile = "", "" }, []string{"wants a client certificate", "set ETCD_CERTFILE and ETCD_KEYFILE"}},
		{"an expired one", func(o *Options) { o.CertFile, o.KeyFile = c.file("expired.pem"), c.file("expired.key") },
			[]string{"refuses the client certificate ETCD_CERTFILE=" + c.file("expired.pem"), "not valid now: give a new one"}},
		{"one of another CA", func(o *Options) { o.CertFile, o.KeyFile = foreign.file("host.pem"), foreign.file("host.key") },
			[]string{"refuses the client certificate ETCD_CERTFILE=" + foreign.file("host.pem"), "signed"}},
		{"one for another use", func(o *Options) { o.CertFile, o.KeyFile = c.file("nouse.pem"), c.file("nouse.key") },
			[]string{"refuses the client certificate ETCD_CERTFILE=" + c.file("nouse.pem"), "extendedKeyUsage clientAuth"}},
		{"http", func(o *Options) { o.Endpoints, o.CAFile, o.CertFile, o.KeyFile = []string{plain}, "", "", "" }, []string{"https:// in ETCD_ENDPOINTS, and ETCD_CAFILE"}},
		{"http with files", func(o *Options) { o.Endpoints = []string{plain} }, []string{plain, "not encrypted", "give https://"}},
		{"a wrong password", func(o *Options) { o.PasswordFile = c.file("junk") }, []string{"authentication failed", "ETCD_USERNAME=flannel", "ETCD_PASSWORD_FILE=" + c.file("junk"), "etcdctl user"}},
		{"a wrong password itself", func(o *Options) { o.PasswordFile, o.Password = "", "wrong-marker-secret" }, []string{"authentication failed", "password of ETCD_PASSWORD;"}},
		{"an unknown user", func(o *Options) { o.Username = "nobody" }, []string{"authentication failed", "ETCD_USERNAME=nobody"}},
		{"no user", func(o *Options) { o.Username, o.PasswordFile = "", "" }, []string{"permission denied", "user host, by the common name of ETCD_CERTFILE=" + c.file("host.pem")}},
		{"no file", func(o *Options) { o.CertFile = c.file("none.pem") }, []string{"ETCD_CERTFILE=" + c.file("none.pem"), "no such file", "certs.source"}},
		{"a directory", func(o *Options) { o.KeyFile = c.dir }, []string{"ETCD_KEYFILE=" + c.dir, "is a directory", "certs.source"}},
		{"another's key", func(o *Options) { o.KeyFile = foreign.file("host.key") }, []string{"ETCD_KEYFILE=" + foreign.file("host.key"), "does not match", "that belongs to it"}},
		{"an empty password", func(o *Options) { o.PasswordFile = c.file("empty") }, []string{"ETCD_PASSWORD_FILE=" + c.file("empty"), "is empty"}},
		{"two passwords", func(o *Options) { o.Password = "marker-secret" }, []string{"ETCD_PASSWORD and ETCD_PASSWORD_FILE", "one of them"}},
	} {
		t.Run(w.name, func(t *testing.T) {
			o := c.user
			w.change(&o)
			if w.says != nil {
				soonSays(t, w.name, func() error { return once(o) }, w.says...)
				return
			}
			if err := once(o); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestWrongServers: and on the server's.
func TestWrongServers(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, dir)
	c := &castle{dir: dir, ca: ca}
	for _, w := range []struct {
		name   string
		scheme string
		change func(*x509.Certificate)
		says   []string
	}{
		{"right, with a CA alone", "https", func(*x509.Certificate) {}, nil},
		{"expired", "https", expired, []string{"not valid now: give etcd a new one"}},
		{"another name", "https", elsewhere, []string{"is for etcd.example, 10.9.8.7: use one of these in ETCD_ENDPOINTS", "subjectAltName"}},
		{"another use", "https", noUse, []string{"extendedKeyUsage serverAuth"}},
		{"no TLS", "http", nil, []string{"http:// in ETCD_ENDPOINTS"}},
	} {
		t.Run(w.name, func(t *testing.T) {
			var args []string
			if w.change != nil {
				ca.issue(t, dir, "server", w.change)
				args = []string{"--cert-file", c.file("server.pem"), "--key-file", c.file("server.key")}
			}
			p := newProcess(t, w.scheme, args...)
			p.start(t)
			tls := "https" + strings.TrimPrefix(p.endpoint, w.scheme)
			if w.scheme == "http" {
				dial(t, p.endpoint).Get(t.Context(), "/") // waits for it
			}
			call := func() error { return once(Options{Endpoints: []string{tls}, CAFile: c.file("ca.pem")}) }
			if w.says != nil {
				soonSays(t, w.name, call, append(w.says, strings.TrimPrefix(tls, "https://"))...)
				return
			}
			err := call()
			for end := time.Now().Add(patience); err != nil && time.Now().Before(end); { // it takes a moment to start
				err = call()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := os.Stat(c.file("server.pem")); err != nil {
		t.Error(err)
	}
}

// once makes a client and calls etcd.
func once(o Options) error {
	o.CallTimeout = 1500 * time.Millisecond
	client, err := Dial(o)
	if err != nil {
		return err
	}
	defer client.Close()
	return fail(New(client, DefaultPrefix).Config(client.Ctx(), "", fixed(stockConfig)))
}
