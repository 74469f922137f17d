package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// certs are the files that make a connection safe. They are read for each one,
// so that a renewed file counts from the next connection on.
type certs struct{ ca, cert, key string }

func (c certs) none() bool { return c.ca == "" && c.cert == "" }

// config reads the files. Without a CA file the system's are used.
func (c certs) config() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.ca != "" {
		pem, err := readFile("ETCD_CAFILE", c.ca)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ETCD_CAFILE=%s holds no PEM certificate: give that of the CA which signed etcd's certificate", c.ca)
		}
	}
	if c.cert == "" {
		return conf, nil
	}
	pair, err := c.pair()
	if err != nil {
		return nil, err
	}
	// Shown whatever CAs the server says that it accepts, so that its answer is
	// about this certificate and not about a missing one.
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	return conf, nil
}

// pair is the client's certificate and key.
func (c certs) pair() (*tls.Certificate, error) {
	cert, err := readFile("ETCD_CERTFILE", c.cert)
	if err != nil {
		return nil, err
	}
	key, err := readFile("ETCD_KEYFILE", c.key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("ETCD_CERTFILE=%s and ETCD_KEYFILE=%s: %w: give a certificate and the key that belongs to it, in PEM", c.cert, c.key, err)
	}
	return &pair, nil
}

// shown describes the client's certificate in an error.
func (c certs) shown() string {
	text := "ETCD_CERTFILE=" + c.cert
	if pair, err := c.pair(); err == nil {
		text += fmt.Sprintf(" (%s)", about(pair.Leaf))
	}
	return text
}

// about is what a person must know of a certificate to tell it from others.
func about(c *x509.Certificate) string {
	return fmt.Sprintf("subject %q, issuer %q, valid from %s to %s", c.Subject, c.Issuer,
		c.NotBefore.UTC().Format("2006-01-02 15:04 MST"), c.NotAfter.UTC().Format("2006-01-02 15:04 MST"))
}

func readFile(setting, path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w: give a file that the plugin can read; files of the host appear under /certs with: docker plugin set docker-flannel certs.source=DIRECTORY", setting, path, err)
	}
	return text, nil
}

// secret is a password given by itself or in a file, which is read each time.
type secret struct{ value, file string }

func (s secret) none() bool { return s.value == "" && s.file == "" }

// setting names where the secret comes from, and never says it.
func (s secret) setting() string {
	if s.file != "" {
		return "ETCD_PASSWORD_FILE=" + s.file
	}
	return "ETCD_PASSWORD"
}

func (s secret) read() (string, error) {
	if s.file == "" {
		return s.value, nil
	}
	text, err := readFile("ETCD_PASSWORD_FILE", s.file)
	if err != nil {
		return "", err
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", fmt.Errorf("ETCD_PASSWORD_FILE=%s is empty: write the password of the etcd user into it, and nothing else", s.file)
	}
	return password, nil
}

// check tells what is wrong with the options before anything is connected.
func (o Options) check(secure bool) error {
	if (o.Username == "") != o.password().none() {
		return errors.New("ETCD_USERNAME and ETCD_PASSWORD or ETCD_PASSWORD_FILE: give a user name and a password, or neither")
	}
	if o.Password != "" && o.PasswordFile != "" {
		return errors.New("ETCD_PASSWORD and ETCD_PASSWORD_FILE: give one of them")
	}
	if _, err := o.password().read(); err != nil {
		return err
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return errors.New("ETCD_CERTFILE and ETCD_KEYFILE: give a certificate file and a key file, or neither")
	}
	if _, err := o.certs().config(); err != nil {
		return err
	}
	if !o.certs().none() && !secure {
		return fmt.Errorf("etcd endpoints %s are not encrypted, although certificate files are given: give https:// endpoints, or no ETCD_CAFILE, ETCD_CERTFILE and ETCD_KEYFILE",
			strings.Join(o.Endpoints, ","))
	}
	return nil
}

func (o Options) certs() certs { return certs{o.CAFile, o.CertFile, o.KeyFile} }

func (o Options) password() secret { return secret{o.Password, o.PasswordFile} }
