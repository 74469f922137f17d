package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"strings"
)

// hidden is a setting's value that nobody prints.
type hidden string

// String is not the value.
func (hidden) String() string { return "(hidden)" }

// GoString is not the value.
func (hidden) GoString() string { return "(hidden)" }

// LogValue is not the value.
func (hidden) LogValue() slog.Value { return slog.StringValue("(hidden)") }

// MarshalText is not the value.
func (hidden) MarshalText() ([]byte, error) { return []byte("(hidden)"), nil }

func readPassword(s *Settings, value string) error {
	s.Password = hidden(value)
	return nil
}

// withoutUser leaves the name and password out of URLs, which have no place
// there but may be put there, with or without a scheme before them. What stands
// before the last @ may hold any character.
func withoutUser(value string) string {
	at := strings.LastIndexByte(value, '@')
	if at < 0 {
		return value
	}
	scheme, _, found := strings.Cut(value[:at], "//")
	if !found || strings.ContainsAny(scheme, "@,") {
		return "(hidden)" + value[at:]
	}
	return scheme + "//(hidden)" + value[at:]
}

// file is a setting that names a file.
type file struct {
	name, path string
	secret     bool
}

func (s *Settings) files() []file {
	var given []file
	for _, f := range []file{
		{"ETCD_CAFILE", s.CAFile, false},
		{"ETCD_CERTFILE", s.CertFile, false},
		{"ETCD_KEYFILE", s.KeyFile, true},
		{"ETCD_PASSWORD_FILE", s.PasswordFile, true},
	} {
		if f.path != "" {
			given = append(given, f)
		}
	}
	return given
}

// safe checks the settings that make the connection to etcd safe.
func (s *Settings) safe() (errs []error) {
	if (s.CertFile == "") != (s.KeyFile == "") {
		errs = append(errs, errors.New("settings ETCD_CERTFILE and ETCD_KEYFILE: give both or neither"))
	}
	switch {
	case s.Password != "" && s.PasswordFile != "":
		errs = append(errs, errors.New("settings ETCD_PASSWORD and ETCD_PASSWORD_FILE: give one of them"))
	case (s.Username == "") != (s.Password == "" && s.PasswordFile == ""):
		errs = append(errs, errors.New("settings ETCD_USERNAME and ETCD_PASSWORD_FILE (or ETCD_PASSWORD): give both or neither"))
	}
	if len(s.Endpoints) == 0 {
		errs = append(errs, s.safeListen()...)
	}
	for _, f := range s.files() {
		if _, err := os.Stat(f.path); err != nil {
			errs = append(errs, fmt.Errorf("setting %s=%s: %w; files of the host appear under /certs with: docker plugin set docker-flannel certs.source=DIRECTORY", f.name, f.path, err))
		}
	}
	return errs
}

// safeListen checks how the embedded etcd listens: with TLS it takes no client
// without a certificate, for it knows no other way to tell who may write.
func (s *Settings) safeListen() []error {
	tls := strings.HasPrefix(s.Listen, "https:")
	if tls && (s.CAFile == "" || s.CertFile == "" || s.KeyFile == "") {
		return []error{fmt.Errorf("setting ETCD_LISTEN=%s: give ETCD_CAFILE, ETCD_CERTFILE and ETCD_KEYFILE, too: this host's certificate, and the CA that signs those of all hosts", s.Listen)}
	}
	if !tls && (s.CAFile != "" || s.CertFile != "") && s.Listen != "" {
		return []error{fmt.Errorf("setting ETCD_LISTEN=%s: with ETCD_CAFILE, ETCD_CERTFILE and ETCD_KEYFILE give https://, or leave them out", s.Listen)}
	}
	return nil
}

// warn says what works and is not safe.
func (s *Settings) warn(log *slog.Logger) {
	for _, f := range s.files() {
		info, err := os.Stat(f.path)
		if err == nil && f.secret && info.Mode().Perm()&others != 0 {
			log.Warn("any user of the host may read a secret; on the host, run chmod o= on the file",
				"setting", f.name, "file", f.path, "mode", info.Mode().Perm())
		}
	}
	if len(s.Endpoints) > 0 {
		return
	}
	u, err := url.Parse(s.Listen)
	if err != nil || u.Scheme != "http" {
		return
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !ip.IsLoopback() {
		log.Warn("whoever reaches the embedded etcd may change the network of all hosts: keep its port inside the hosts' network, or set ETCD_LISTEN=https:// with certificates (docs/security.md)",
			"setting", "ETCD_LISTEN", "value", s.Listen)
	}
}

// others are the rights of those who neither own a file nor are of its group.
const others fs.FileMode = 0o007
