//go:build lab

package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/recipe"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/etcd"
)

// makeCerts follows docs/security.md with other addresses, and returns the
// folder with one folder a host.
func makeCerts(t *testing.T, addrs string) string {
	t.Helper()
	commands, err := recipe.Read("../../docs/security.md", "### Certificates with openssl")
	if err != nil {
		t.Fatal(err)
	}
	const documented = "10.0.0.1 10.0.0.2"
	if strings.Count(commands, documented) != 1 {
		t.Fatalf("the document names other hosts than %s:\n%s", documented, commands)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", strings.Replace(commands, documented, addrs, 1))
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the lab needs openssl: %v\n%s", err, out)
	}
	return cmd.Dir
}

// copyFiles puts a host's files in the place of others.
func copyFiles(t *testing.T, from, to string, names ...string) {
	t.Helper()
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// as calls the server with the files of a folder.
func as(endpoint, dir string, withCertificate bool) error {
	o := etcd.Options{Endpoints: []string{endpoint}, CAFile: dir + "/ca.pem", CallTimeout: 3 * time.Second}
	if withCertificate {
		o.CertFile, o.KeyFile = dir+"/host.pem", dir+"/host.key"
	}
	c, err := etcd.Dial(o)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = etcd.New(c, "/tls").Config(c.Ctx(), "", func(map[string]overlay.Config) ([]byte, error) {
		return []byte(`{"Network":"10.5.0.0/16"}`), nil
	})
	return err
}

// TestDocumentedCertificates: with the certificates that the document makes,
// hosts are let in, and nobody else.
func TestDocumentedCertificates(t *testing.T) {
	dir := makeCerts(t, "127.0.0.1 127.0.0.2")
	mine, theirs, foreign := dir+"/127.0.0.1", dir+"/127.0.0.2", makeCerts(t, "127.0.0.2")+"/127.0.0.2"
	port := freePort(t)
	s, stop := run(t, Options{Dir: t.TempDir(), Listen: "https://0.0.0.0:" + port,
		CAFile: mine + "/ca.pem", CertFile: mine + "/host.pem", KeyFile: mine + "/host.key"})
	if s.Endpoint() != "https://127.0.0.1:"+port {
		t.Errorf("endpoint %s", s.Endpoint())
	}
	for _, host := range []string{mine, theirs} {
		if err := as(s.Endpoint(), host, true); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := as(s.Endpoint(), theirs, false); err == nil || !strings.Contains(err.Error(), "wants a client certificate") {
		t.Errorf("without a certificate: %v", err)
	}
	copyFiles(t, mine, foreign, "ca.pem") // trusts the server, is not trusted
	if err := as(s.Endpoint(), foreign, true); err == nil || !strings.Contains(err.Error(), "refuses the client certificate") {
		t.Errorf("with a foreign certificate: %v", err)
	}
	if err := as(strings.Replace(s.Endpoint(), "127.0.0.1", "127.0.0.2", 1), theirs, true); err == nil || !strings.Contains(err.Error(), "is for 127.0.0.1") {
		t.Errorf("by an address that is not in the certificate: %v", err)
	}
	start := time.Now()
	if err := stop(); err != nil || time.Since(start) > 6*time.Second {
		t.Errorf("stopping took %s: %v", time.Since(start), err)
	}
}

// TestCertificatesChanged: a new certificate is shown at once, a new CA after
// the start that ErrRenewed asks for.
func TestCertificatesChanged(t *testing.T) {
	mine, next := makeCerts(t, "127.0.0.1")+"/127.0.0.1", makeCerts(t, "127.0.0.1")+"/127.0.0.1"
	o := Options{Dir: t.TempDir(), Listen: "https://127.0.0.1:" + freePort(t),
		CAFile: mine + "/ca.pem", CertFile: mine + "/host.pem", KeyFile: mine + "/host.key"}
	s := New(o)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	<-s.Ready()
	before, err := os.ReadFile(mine + "/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	if err := as(s.Endpoint(), mine, true); err != nil {
		t.Error(err)
	}
	old := t.TempDir()
	copyFiles(t, mine, old, "ca.pem", "host.pem", "host.key")
	copyFiles(t, next, mine, "host.pem", "host.key")
	if err := as(s.Endpoint(), old, true); err == nil || !strings.Contains(err.Error(), "not signed by ETCD_CAFILE") {
		t.Errorf("the server shows its old certificate: %v", err)
	}
	copyFiles(t, next, mine, "ca.pem")
	select {
	case err := <-ended:
		if !errors.Is(err, ErrRenewed) {
			t.Fatal(err)
		}
	case <-time.After(3 * look):
		t.Fatal("the server does not see the new CA")
	}
	again, _ := run(t, o)
	if err := as(again.Endpoint(), mine, true); err != nil {
		t.Error(err)
	}
	copyFiles(t, next, old, "ca.pem")
	if err := as(again.Endpoint(), old, true); err == nil || !strings.Contains(err.Error(), "refuses the client certificate") {
		t.Errorf("a certificate of the old CA: %v", err)
	}
	if after, _ := os.ReadFile(mine + "/ca.pem"); bytes.Equal(before, after) {
		t.Error("nothing has changed: the test tests nothing")
	}
}

// TestWrongCertificates: Run says what to give.
func TestWrongCertificates(t *testing.T) {
	mine := makeCerts(t, "127.0.0.1") + "/127.0.0.1"
	for _, c := range []struct{ ca, cert, key, want string }{
		{"", "", "", "give ETCD_CAFILE, ETCD_CERTFILE and ETCD_KEYFILE, too"},
		{mine + "/none.pem", mine + "/host.pem", mine + "/host.key", "ETCD_CAFILE=" + mine + "/none.pem"},
		{mine + "/host.key", mine + "/host.pem", mine + "/host.key", "holds no PEM certificate"},
		{mine + "/ca.pem", mine + "/host.pem", mine + "/ca.pem", "ETCD_KEYFILE=" + mine + "/ca.pem"},
	} {
		err := New(Options{Dir: t.TempDir(), Listen: "https://127.0.0.1:0", CAFile: c.ca, CertFile: c.cert, KeyFile: c.key}).Run(t.Context())
		if err == nil || !strings.Contains(fmt.Sprint(err), c.want) || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}
