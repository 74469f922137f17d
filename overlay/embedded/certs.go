package embedded

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
)

// certs are the files of a server with TLS.
type certs struct{ ca, cert, key string }

func (c certs) complete() bool { return c.ca != "" && c.cert != "" && c.key != "" }

// info is etcd's own word for them. It reads certificate and key for every
// connection, and the CA file at its start.
func (c certs) info() transport.TLSInfo {
	return transport.TLSInfo{CertFile: c.cert, KeyFile: c.key, TrustedCAFile: c.ca, ClientCertAuth: true}
}

// ErrRenewed is what Run returns when the CA file has changed: the server must
// run again to trust what it holds now.
var ErrRenewed = errors.New("the file of ETCD_CAFILE has changed")

// look is the time between two looks at the CA file.
const look = 5 * time.Second

// trusted checks the files as etcd will read them, and returns the CA file's
// text; nothing without TLS.
func (s *Server) trusted() ([]byte, error) {
	if s.listen.Scheme != "https" {
		return nil, nil
	}
	if _, err := tls.LoadX509KeyPair(s.certs.cert, s.certs.key); err != nil {
		return nil, fmt.Errorf("ETCD_CERTFILE=%s and ETCD_KEYFILE=%s: %w: give a certificate and the key that belongs to it, in PEM", s.certs.cert, s.certs.key, err)
	}
	pem, err := os.ReadFile(s.certs.ca)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
		err = errors.New("it holds no PEM certificate")
	}
	if err != nil {
		return nil, fmt.Errorf("ETCD_CAFILE=%s: %w: give the certificate of the CA that signs those of all hosts", s.certs.ca, err)
	}
	return pem, nil
}

// renewed is told when the CA file is good and no longer what it was; stop waits
// for the end of the looking.
func (s *Server) renewed(ctx context.Context, was []byte) (changed <-chan struct{}, stop func()) {
	if was == nil {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	found, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(look)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if is, err := s.trusted(); err == nil && !bytes.Equal(is, was) {
					close(found)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return found, func() {
		cancel()
		<-ended
	}
}
