package plugin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/logbuf"
)

// send writes bytes to the socket, ends the sending, and returns the answers.
func send(t *testing.T, socket, raw string) string {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// What is refused early is not read to its end.
	_, _ = io.WriteString(c, raw)
	_ = c.(*net.UnixConn).CloseWrite()
	answer, _ := io.ReadAll(c)
	return string(answer)
}

// TestBrokenHTTP: what is no HTTP is refused by net/http in plain text, and
// what is, in JSON.
func TestBrokenHTTP(t *testing.T) {
	w := newWorld(t)
	socket := w.socket(t)
	d := &door{w, newCaller(t, socket), t}
	d.take(life[0])
	before := d.state(t)
	const begin = "POST /NetworkDriver.CreateNetwork HTTP/1.1\r\nHost: plugin\r\n"
	body := life[2].body
	for name, c := range map[string]struct{ raw, status, says string }{
		"nothing":              {"", "", ""},
		"half a request line":  {"POST /Network", "", ""},
		"half a header":        {"POST /Plugin.Activate HTTP/1.1\r\nHo", "", ""},
		"noise":                {"\x00\x01\xff\xfe\r\n\r\n", "400", ""},
		"another protocol":     {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "", ""},
		"no host":              {"POST /Plugin.Activate HTTP/1.1\r\n\r\n", "400", ""},
		"an old version":       {"POST /Plugin.Activate HTTP/3.7\r\nHost: x\r\n\r\n", "505", ""},
		"a long header":        {"POST / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", "431", ""},
		"a negative length":    {begin + "Content-Length: -5\r\n\r\n", "400", ""},
		"two lengths":          {begin + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "400", ""},
		"half a body":          {begin + "Content-Length: 1000\r\n\r\n" + body, "400", "try again"},
		"a broken chunk":       {begin + "Transfer-Encoding: chunked\r\n\r\nZZ\r\n" + body, "400", "try again"},
		"half a chunk":         {begin + "Transfer-Encoding: chunked\r\n\r\nff\r\n{", "400", "try again"},
		"no length":            {begin + "\r\n" + body, "400", "empty"},
		"a cut length":         {begin + "Content-Length: 9\r\n\r\n" + body, "400", "try again"},
		"an untidy path":       {"POST //NetworkDriver.CreateNetwork HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", "404", "//NetworkDriver"},
		"a path with dots":     {"POST /x/../NetworkDriver.CreateNetwork HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", "404", "not a call"},
		"a path with a query":  {"POST /NetworkDriver.Dance?x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", "404", "not a call"},
		"a star":               {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "404", "not a call"},
		"a tunnel":             {"CONNECT plugin:80 HTTP/1.1\r\nHost: plugin:80\r\n\r\n", "404", "not a call"},
		"the root":             {"POST / HTTP/1.1\r\nHost: x\r\n\r\n", "404", "not a call"},
		"a call of no driver":  {"POST /VolumeDriver.Create HTTP/1.1\r\nHost: x\r\n\r\n", "404", "VolumeDriver.Create"},
		"a call in small case": {"POST /networkdriver.createnetwork HTTP/1.1\r\nHost: x\r\n\r\n", "404", "not a call"},
	} {
		answer := send(t, socket, c.raw)
		d.same(name, before)
		if status := "HTTP/1.1 " + c.status; c.status != "" && !strings.HasPrefix(answer, status) {
			t.Errorf("%s: %.200q, want %s", name, answer, status)
		}
		if c.says == "" {
			continue
		}
		res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
		if err != nil {
			t.Errorf("%s: %q: %v", name, answer, err)
			continue
		}
		text, _ := io.ReadAll(res.Body)
		if fault := faultOf(t, res.StatusCode, text); !strings.Contains(fault, c.says) {
			t.Errorf("%s: %q does not say %q", name, fault, c.says)
		}
		_ = res.Body.Close()
	}
	for _, s := range life[1:] {
		d.take(s)
	}
}

// pipes is a listener that accepts one connection.
type pipes struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conn:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.closed); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// TestBodyThatNeverComes: neither a request nor a body that is not sent to its
// end holds a connection for ever; one between calls is kept.
func TestBodyThatNeverComes(t *testing.T) {
	for name, c := range map[string]struct {
		raw    string
		answer string
		open   bool // after an hour
	}{
		"header":   {"POST /NetworkDriver.Join HTTP/1.1\r\n", "", false},
		"body":     {"POST /NetworkDriver.Join HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", "HTTP/1.1 400", false},
		"unneeded": {"POST /Plugin.Activate HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", "HTTP/1.1 200", false},
		"next":     {"POST /Plugin.Activate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 200", true},
	} {
		t.Run(name, func(t *testing.T) {
			h := handler(t, rooms{})
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				p := pipes{make(chan net.Conn, 1), make(chan struct{})}
				p.conn <- far
				srv := server(h)
				go func() { _ = srv.Serve(p) }()
				go func() { _, _ = io.WriteString(near, c.raw) }()
				answer, ended := &logbuf.Buffer{}, make(chan struct{})
				go func() {
					_, _ = io.Copy(answer, near)
					close(ended)
				}()
				time.Sleep(time.Hour) // the fake clock's
				open := true
				select {
				case <-ended:
					open = false
				default:
				}
				if !strings.HasPrefix(answer.String(), c.answer) || open != c.open {
					t.Errorf("open %t, answer %q", open, answer)
				}
				_ = near.Close()
				if err := srv.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
