package plugin

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/logbuf"
	"github.com/docker-flannel/docker-flannel/overlay/etcd"
)

const password = "marker-of-a-password"

// vault is a host's files with secrets in them, and what gives them away.
type vault struct {
	dir     string
	markers []string
}

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{t.TempDir(), []string{password, "PRIVATE KEY"}}
	v.write(t, "password", []byte(password+"\n"))
	v.write(t, "wrong", []byte("wrong-"+password))
	v.write(t, "junk", []byte("-----BEGIN PRIVATE KEY-----\n"+password+"\n-----END PRIVATE KEY-----\n"))
	for _, name := range []string{"host", "foreign"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			IsCA:        true, BasicConstraintsValid: true,
		}
		cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		v.write(t, name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
		v.write(t, name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		raw, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		v.markers = append(v.markers, base64.StdEncoding.EncodeToString(der)[:60], fmt.Sprintf("%x", raw))
	}
	return v
}

func (v *vault) file(name string) string { return filepath.Join(v.dir, name) }

func (v *vault) write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(v.file(name), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// found tells what of the secrets is in a text.
func (v *vault) found(text []byte) (markers []string) {
	for _, m := range v.markers {
		if bytes.Contains(text, []byte(m)) {
			markers = append(markers, m)
		}
	}
	return markers
}

// search reads every file below a folder.
func (v *vault) search(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range v.found(text) {
			found = append(found, path+": "+m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSecretsStaySecret takes the plugin through all that can go wrong with
// passwords and keys, at the log level that says most, and then reads its logs,
// its answers and its files.
func TestSecretsStaySecret(t *testing.T) {
	v := newVault(t)
	if n := len(v.search(t, v.dir)); n < 5 {
		t.Fatalf("the probe finds %d secrets where they are", n)
	}
	var said logbuf.Buffer // logs and answers
	log, level := NewLog(&said, &said)
	level.Set(slog.LevelDebug)
	listen := freeURL(t)
	good := map[string]string{
		"ETCD_LISTEN": listen, "ETCD_CAFILE": v.file("host.pem"), "ETCD_CERTFILE": v.file("host.pem"), "ETCD_KEYFILE": v.file("host.key"),
		"ETCD_USERNAME": "root", "ETCD_PASSWORD_FILE": v.file("password"), "LOG_LEVEL": "debug",
	}
	with := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for k, value := range good {
			m[k] = value
		}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	newHome(t, v, &said, log, good).answers(t)
	enableAuth(t, etcd.Options{Endpoints: []string{listen}, CAFile: good["ETCD_CAFILE"], CertFile: good["ETCD_CERTFILE"], KeyFile: good["ETCD_KEYFILE"]})
	remote := func(pairs ...string) map[string]string {
		return with(append([]string{"ETCD_ENDPOINTS", listen}, pairs...)...)
	}
	for name, c := range map[string]struct {
		settings map[string]string
		says     string
	}{
		"right":               {remote(), ""},
		"the setting":         {remote("ETCD_PASSWORD_FILE", "", "ETCD_PASSWORD", password), ""},
		"wrong password":      {remote("ETCD_PASSWORD_FILE", v.file("wrong")), "ETCD_PASSWORD_FILE=" + v.file("wrong")},
		"wrong setting":       {remote("ETCD_PASSWORD_FILE", "", "ETCD_PASSWORD", password+"x"), "password of ETCD_PASSWORD"},
		"both":                {remote("ETCD_PASSWORD", password), "give one of them"},
		"no user":             {remote("ETCD_USERNAME", ""), "ETCD_USERNAME"},
		"user in URL":         {remote("ETCD_ENDPOINTS", "https://root:"+password+"@127.0.0.1:1"), "https://(hidden)@127.0.0.1:1"},
		"without a scheme":    {remote("ETCD_ENDPOINTS", "root:"+password+"/,@x@127.0.0.1:1"), "(hidden)@127.0.0.1:1"},
		"second URL":          {remote("ETCD_ENDPOINTS", listen+",https://root:"+password+"@127.0.0.1:1"), "(hidden)@127.0.0.1:1"},
		"user in ETCD_LISTEN": {with("ETCD_LISTEN", "https://root:"+password+"@127.0.0.1:1"), "(hidden)@127.0.0.1:1"},
		"another's key":       {remote("ETCD_KEYFILE", v.file("foreign.key")), "does not match"},
		"junk for a key":      {remote("ETCD_KEYFILE", v.file("junk")), "ETCD_KEYFILE=" + v.file("junk")},
		"files swapped":       {remote("ETCD_CERTFILE", v.file("host.key"), "ETCD_KEYFILE", v.file("host.pem")), "ETCD_CERTFILE=" + v.file("host.key")},
		"a key for a CA":      {remote("ETCD_CAFILE", v.file("host.key")), "ETCD_CAFILE=" + v.file("host.key")},
		"foreign certificate": {remote("ETCD_CERTFILE", v.file("foreign.pem"), "ETCD_KEYFILE", v.file("foreign.key")), "refuses the client certificate"},
		"foreign CA":          {remote("ETCD_CAFILE", v.file("foreign.pem")), "not signed by ETCD_CAFILE"},
		"nobody there":        {remote("ETCD_ENDPOINTS", "https://127.0.0.1:1"), "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			from := len(said.String())
			h := newHome(t, v, &said, log, c.settings)
			// etcd takes its time for passwords: on a busy machine the first
			// calls are not answered.
			for end := time.Now().Add(30 * time.Second); ; {
				answer := h.call(t)
				text := said.String()[from:]
				if c.says == "" && !strings.Contains(answer, `"Err"`) || c.says != "" && strings.Contains(text, c.says) {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("%q is not in what it says:\n%s", c.says, text)
				}
			}
		})
	}
	if !strings.Contains(said.String(), "level=DEBUG") || !strings.Contains(said.String(), "may read a secret") {
		t.Errorf("the log lacks what it is searched in:\n%s", said.String())
	}
	for _, m := range v.found([]byte(said.String())) {
		t.Errorf("%q is in a log or an answer:\n%s", m, said.String())
	}
}

// home is a plugin with a kernel that is not real.
type home struct {
	world
	said io.Writer
}

// newHome starts the plugin's rooms with settings; its files are searched at the
// end of the test.
func newHome(t *testing.T, v *vault, said io.Writer, log *slog.Logger, pairs map[string]string) *home {
	t.Helper()
	h := &home{world: world{dir: t.TempDir()}, said: said}
	t.Cleanup(func() {
		for _, m := range v.search(t, h.dir) {
			t.Errorf("in a file of the plugin: %s", m)
		}
	})
	settings, err := read(pairs)
	if err != nil {
		log.Error("settings", "error", err)
		h.Handler = broken(err)
		return h
	}
	log.Debug("settings", "all", settings, "again", fmt.Sprintf("%+v %#v", settings, settings.Password))
	settings.warn(log)
	p := &parts{metrics: newMetrics()}
	client, err := p.openStore(Paths{State: h.dir}, settings, log)
	if err != nil {
		log.Error("build", "error", err)
		h.Handler = broken(err)
		return h
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	if p.embedded != nil {
		go func() { ended <- p.embedded.run(ctx) }()
	} else {
		ended <- nil
	}
	h.initial = settings.Config
	if err := h.open(p.store, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Error(err)
		}
		cancel()
		<-ended
		client.Close()
	})
	return h
}

// call asks for a pool, as docker network create does.
func (h *home) call(t *testing.T) (answer string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, life[0].path, strings.NewReader(life[0].body)))
	answer = w.Body.String()
	fmt.Fprintln(h.said, answer)
	return answer
}

// answers calls until there is no error: etcd may take its time to start.
func (h *home) answers(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		answer := h.call(t)
		if !strings.Contains(answer, `"Err"`) {
			return
		}
		if time.Now().After(end) {
			t.Fatal(answer)
		}
	}
}

// enableAuth makes root with the password.
func enableAuth(t *testing.T, o etcd.Options) {
	t.Helper()
	admin, err := etcd.Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	for _, step := range []func() error{
		func() error { _, err := admin.RoleAdd(t.Context(), "root"); return err },
		func() error { _, err := admin.UserAdd(t.Context(), "root", password); return err },
		func() error { _, err := admin.UserGrantRole(t.Context(), "root", "root"); return err },
		func() error { _, err := admin.AuthEnable(t.Context()); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

func freeURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "https://" + l.Addr().String()
}
