package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// handshake is how a client's connections begin: with TLS, or without. It
// remembers why the last one came to nothing, in words that name the setting to
// change; gRPC passes on no more than that it waited in vain.
type handshake struct {
	credentials.TransportCredentials // plain, for what does not concern a client
	certs                            certs
	secure                           bool
	trouble                          *trouble
}

func newHandshake(c certs, secure bool) *handshake {
	plain := insecure.NewCredentials()
	if secure {
		plain = credentials.NewTLS(nil)
	}
	return &handshake{plain, c, secure, &trouble{}}
}

// Clone returns one that remembers together with the first.
func (h *handshake) Clone() credentials.TransportCredentials {
	c := *h
	c.TransportCredentials = h.TransportCredentials.Clone()
	return &c
}

// ClientHandshake begins a connection to the server called authority.
func (h *handshake) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	how := h.TransportCredentials
	if h.secure {
		conf, err := h.certs.config()
		if err != nil {
			h.trouble.set(err, false)
			return nil, nil, err
		}
		how = credentials.NewTLS(conf)
	}
	conn, info, err := how.ClientHandshake(ctx, authority, raw)
	if h.secure && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
		err = fmt.Errorf("%w: %w", errNoTLS, err)
	}
	if err != nil {
		return nil, nil, h.explain(authority, err)
	}
	return &greeting{Conn: conn, of: h, authority: authority, answered: make(chan struct{})}, info, nil
}

// greeting is a connection whose first bytes tell whether the server takes it:
// a client's certificate is refused only after the handshake.
type greeting struct {
	net.Conn
	of        *handshake
	authority string
	once      sync.Once
	answered  chan struct{} // closed with the first read
}

// Write fails where the server has ended the connection. Why, it has said before,
// and the client closes its side as soon as it knows of the failure: whoever reads
// is to read that first.
func (g *greeting) Write(p []byte) (int, error) {
	n, err := g.Conn.Write(p)
	if err != nil {
		select {
		case <-g.answered:
		case <-time.After(lastWords):
		}
	}
	return n, err
}

// lastWords is how long a reader may take to read what has arrived already.
const lastWords = time.Second

func (g *greeting) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	g.once.Do(func() {
		defer close(g.answered)
		switch {
		case errors.Is(err, net.ErrClosed): // by this side, which tells nothing of the other
		case err != nil:
			err = g.of.explain(g.authority, err)
		case !g.of.secure && looksLikeTLS(p[:n]):
			err = g.of.explain(g.authority, errTLSAnswer)
		default:
			g.of.trouble.set(nil, false)
		}
	})
	return n, err
}

var (
	errTLSAnswer = errors.New("the answer is TLS")
	errNoTLS     = errors.New("the server ends the connection at the first word of TLS")
)

// looksLikeTLS tells a TLS alert (RFC 8446, section 5.1), or the words of an
// HTTP/1 server that was asked for TLS, from HTTP/2.
func looksLikeTLS(b []byte) bool {
	return len(b) > 1 && b[0] == 21 && b[1] == 3 || strings.HasPrefix(string(b), "HTTP/1.0 400")
}

// explain says what a person can do about a connection that came to nothing,
// and remembers it.
func (h *handshake) explain(authority string, err error) error {
	why, sure := h.judge(authority, err)
	if why == "" {
		h.trouble.set(nil, false)
		return err
	}
	err = fmt.Errorf("%s (%w)", why, err)
	h.trouble.set(err, !sure)
	return err
}

// judge returns "" for what it knows nothing about; it is sure where the error
// can mean nothing else.
func (h *handshake) judge(authority string, err error) (why string, sure bool) {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		header  tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return "", false
	case errors.As(err, &unknown) && h.certs.ca == "":
		return fmt.Sprintf("nobody knows who signed the certificate of etcd at %s: set ETCD_CAFILE to the certificate of the CA that did", authority), true
	case errors.As(err, &unknown):
		return fmt.Sprintf("the certificate of etcd at %s (%s) is not signed by ETCD_CAFILE=%s: give the certificate of the CA that signed it", authority, about(unknown.Cert), h.certs.ca), true
	case errors.As(err, &name):
		return fmt.Sprintf("the certificate of etcd at %s (%s) is for %s: use one of these in ETCD_ENDPOINTS, or give etcd a certificate with this name or address as subjectAltName", authority, about(name.Certificate), names(name.Certificate)), true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the certificate of etcd at %s (%s) is not valid now: give etcd a new one, or set this host's clock", authority, about(invalid.Cert)), true
	case errors.As(err, &invalid):
		return fmt.Sprintf("the certificate of etcd at %s (%s) is no good: give etcd one with extendedKeyUsage serverAuth, signed by the CA of ETCD_CAFILE", authority, about(invalid.Cert)), true
	case errors.As(err, &header), errors.Is(err, errNoTLS):
		return fmt.Sprintf("etcd at %s speaks no TLS: give http:// in ETCD_ENDPOINTS, or give etcd a certificate", authority), true
	case errors.Is(err, errTLSAnswer):
		return fmt.Sprintf("etcd at %s speaks TLS: give https:// in ETCD_ENDPOINTS, and ETCD_CAFILE", authority), true
	case strings.Contains(err.Error(), "remote error: tls"):
		return h.refused(authority)
	case timedOut(err):
		return "", false
	case !h.secure:
		return fmt.Sprintf("etcd at %s ends the connection at once: if it speaks TLS, give https:// in ETCD_ENDPOINTS, and ETCD_CAFILE", authority), false
	case h.certs.cert == "":
		return fmt.Sprintf("etcd at %s ends the connection at once: it may want a client certificate, ETCD_CERTFILE and ETCD_KEYFILE", authority), false
	}
	return fmt.Sprintf("etcd at %s ends the connection at once: it may not accept the client certificate %s", authority, h.certs.shown()), false
}

// refused is for a server that says no to what the client has shown.
func (h *handshake) refused(authority string) (why string, sure bool) {
	if h.certs.cert == "" {
		return fmt.Sprintf("etcd at %s wants a client certificate: set ETCD_CERTFILE and ETCD_KEYFILE to one that its CA has signed", authority), true
	}
	what := "give one with extendedKeyUsage clientAuth that the CA which etcd trusts has signed"
	if pair, err := h.certs.pair(); err == nil {
		if now := time.Now(); now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore) {
			what = "it is not valid now: give a new one, or set this host's clock"
		}
	}
	return fmt.Sprintf("etcd at %s refuses the client certificate %s: %s", authority, h.certs.shown(), what), true
}

func timedOut(err error) bool {
	var netErr net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout()
}

// names are what a certificate is for.
func names(c *x509.Certificate) string {
	all := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name or address at all"
	}
	return strings.Join(all, ", ")
}

// trouble is why no connection comes about, nil where nobody knows or there is
// none.
type trouble struct {
	mu   sync.Mutex
	err  error
	when time.Time
}

// memory is how long a guess does not replace what was known for sure: a server
// that refuses may cut the connection before its reason has come through.
const memory = 2 * maxRedial

func (t *trouble) set(err error, guess bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if guess && t.err != nil && time.Since(t.when) < memory {
		return
	}
	t.err, t.when = err, time.Now()
}

func (t *trouble) get() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}
