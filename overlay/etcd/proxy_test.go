package etcd

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy stands between a client and a server, to cut them apart.
type proxy struct {
	scheme string
	target string
	addr   string
	mu     sync.Mutex
	listen net.Listener
	conns  map[net.Conn]bool
	wg     sync.WaitGroup
	wrap   func(net.Listener) net.Listener // may be nil
	frozen sync.RWMutex                    // locked while nothing passes
}

func newProxy(t testing.TB, endpoint string) *proxy {
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{scheme: u.Scheme, target: u.Host, addr: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	p.join(t)
	t.Cleanup(func() {
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) endpoint() string { return p.scheme + "://" + p.addr }

// join lets clients connect.
func (p *proxy) join(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	if p.wrap != nil {
		l = p.wrap(l)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listen, p.addr = l, l.Addr().String()
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(l, c) })
		}
	})
}

func (p *proxy) serve(l net.Listener, c net.Conn) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	s, err := net.Dial("tcp", target)
	if err != nil {
		c.Close()
		return
	}
	p.mu.Lock()
	if p.listen != l {
		p.mu.Unlock()
		c.Close()
		s.Close()
		return
	}
	p.conns[c], p.conns[s] = true, true
	p.mu.Unlock()
	p.wg.Go(func() { p.copy(s, c) })
	p.copy(c, s)
}

func (p *proxy) copy(dst, src net.Conn) {
	defer dst.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		p.frozen.RLock()
		_, err = dst.Write(buf[:n])
		p.frozen.RUnlock()
		if err != nil {
			return
		}
	}
}

// cut ends all connections and refuses new ones.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listen == nil {
		return
	}
	p.listen.Close()
	p.listen = nil
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

// redirect lets clients connect to another server, at the same address.
func (p *proxy) redirect(t testing.TB, endpoint string) {
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.target = u.Host
	p.mu.Unlock()
	p.join(t)
}
