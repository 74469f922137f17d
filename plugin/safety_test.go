package plugin

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/logbuf"
)

// TestWarnings: what works and is not safe is said once, and nothing else is.
func TestWarnings(t *testing.T) {
	v := newVault(t)
	for _, c := range []struct {
		name  string
		mode  os.FileMode
		pairs map[string]string
		want  []string
	}{
		{"nothing", 0o600, nil, nil},
		{"loopback", 0o600, map[string]string{"ETCD_LISTEN": "http://[::1]:2379"}, nil},
		{"plain", 0o600, map[string]string{"ETCD_LISTEN": "http://10.0.0.1:2379"}, []string{"ETCD_LISTEN value=http://10.0.0.1:2379"}},
		{"everywhere", 0o600, map[string]string{"ETCD_LISTEN": "http://0.0.0.0:2379"}, []string{"ETCD_LISTEN value=http://0.0.0.0:2379"}},
		{"another's etcd", 0o600, map[string]string{"ETCD_LISTEN": "http://10.0.0.1:2379", "ETCD_ENDPOINTS": "http://10.0.0.1:2379"}, nil},
		{"TLS", 0o640, map[string]string{"ETCD_LISTEN": "https://10.0.0.1:2379"}, nil},
		{"open files", 0o644, map[string]string{"ETCD_LISTEN": "https://10.0.0.1:2379", "ETCD_USERNAME": "u", "ETCD_PASSWORD_FILE": v.file("password")},
			[]string{"ETCD_KEYFILE file=" + v.file("host.key") + " mode=-rw-r--r--", "ETCD_PASSWORD_FILE file=" + v.file("password")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range []string{"host.key", "password"} {
				if err := os.Chmod(v.file(name), c.mode); err != nil {
					t.Fatal(err)
				}
			}
			if strings.HasPrefix(c.pairs["ETCD_LISTEN"], "https") {
				c.pairs["ETCD_CAFILE"], c.pairs["ETCD_CERTFILE"], c.pairs["ETCD_KEYFILE"] = v.file("host.pem"), v.file("host.pem"), v.file("host.key")
			}
			s, err := read(c.pairs)
			if err != nil {
				t.Fatal(err)
			}
			var log logbuf.Buffer
			s.warn(slog.New(slog.NewTextHandler(&log, nil)))
			if n := strings.Count(log.String(), "level=WARN"); n != len(c.want) {
				t.Errorf("%d warnings, want %d:\n%s", n, len(c.want), log.String())
			}
			for _, want := range c.want {
				if !strings.Contains(log.String(), "setting="+want) {
					t.Errorf("%q is not in:\n%s", want, log.String())
				}
			}
		})
	}
}

// TestUnsafeSettings: what cannot be meant is refused by name.
func TestUnsafeSettings(t *testing.T) {
	v := newVault(t)
	for name, c := range map[string]struct {
		pairs map[string]string
		want  string
	}{
		"TLS with a CA alone":   {map[string]string{"ETCD_LISTEN": "https://10.0.0.1:2379", "ETCD_CAFILE": v.file("host.pem")}, "setting ETCD_LISTEN=https://10.0.0.1:2379: give ETCD_CAFILE, ETCD_CERTFILE and ETCD_KEYFILE"},
		"files without TLS":     {map[string]string{"ETCD_CAFILE": v.file("host.pem")}, "setting ETCD_LISTEN=http://127.0.0.1:2379: with ETCD_CAFILE"},
		"no password file":      {map[string]string{"ETCD_USERNAME": "u", "ETCD_PASSWORD_FILE": v.file("none")}, "setting ETCD_PASSWORD_FILE=" + v.file("none")},
		"a file and no user":    {map[string]string{"ETCD_PASSWORD_FILE": v.file("password")}, "settings ETCD_USERNAME and ETCD_PASSWORD_FILE"},
		"two kinds of password": {map[string]string{"ETCD_USERNAME": "u", "ETCD_PASSWORD": "p", "ETCD_PASSWORD_FILE": v.file("password")}, "settings ETCD_PASSWORD and ETCD_PASSWORD_FILE: give one"},
	} {
		if _, err := read(c.pairs); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

// TestKeeperTakesNewCA: the embedded etcd starts again over a new CA file, and
// calls go on.
func TestKeeperTakesNewCA(t *testing.T) {
	v := newVault(t)
	var said logbuf.Buffer
	log, _ := NewLog(&said, &said)
	settings := map[string]string{
		"ETCD_LISTEN": freeURL(t), "ETCD_CAFILE": v.file("host.pem"), "ETCD_CERTFILE": v.file("host.pem"), "ETCD_KEYFILE": v.file("host.key"),
	}
	newHome(t, v, &said, log, settings).answers(t)
	pem, err := os.ReadFile(v.file("host.pem"))
	if err != nil {
		t.Fatal(err)
	}
	v.write(t, "host.pem", append(pem, "# changed\n"...))
	if !said.Await("embedded etcd starts again", 30*time.Second) {
		t.Fatalf("it does not start again:\n%s", said.String())
	}
	settings["ETCD_ENDPOINTS"] = settings["ETCD_LISTEN"]
	newHome(t, v, &said, log, settings).answers(t)
	if strings.Contains(said.String(), "level=ERROR") {
		t.Errorf("log:\n%s", said.String())
	}
}
