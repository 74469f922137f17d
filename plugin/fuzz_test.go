package plugin

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
)

// do makes a call without a socket.
func (w *world) do(t testing.TB, method, path, body string) (answer, fault string) {
	t.Helper()
	res := httptest.NewRecorder()
	w.ServeHTTP(res, (&http.Request{Method: method, URL: &url.URL{Path: path}, Body: io.NopCloser(strings.NewReader(body))}).WithContext(t.Context()))
	return res.Body.String(), faultOf(t, res.Code, res.Body.Bytes())
}

// running is a world with one container.
func running(t testing.TB, dir string) *world {
	t.Helper()
	w, err := worldIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range life[:joined] {
		if _, fault := w.do(t, http.MethodPost, s.path, s.body); fault != "" {
			t.Fatal(fault)
		}
	}
	w.await(t, "container", func(state string) bool { return strings.Contains(state, "flv") })
	return w
}

// changing are the calls that can change something.
var changing = map[string]bool{
	"/NetworkDriver.DeleteNetwork": true, "/NetworkDriver.CreateEndpoint": true, "/NetworkDriver.DeleteEndpoint": true,
	"/IpamDriver.RequestAddress": true, "/IpamDriver.ReleaseAddress": true, "/IpamDriver.ReleasePool": true,
}

// FuzzDoor wants of any call that it is answered, in JSON and without a panic,
// and that nothing changes but by a call which is there for that, is well
// formed and succeeds.
func FuzzDoor(f *testing.F) {
	for _, s := range life {
		f.Add("POST", s.path, s.body)
		f.Add("GET", s.path, s.body)
		f.Add("POST", s.path, s.body[:len(s.body)/2])
	}
	f.Add("POST", "/Plugin.Activate", "")
	f.Add("POST", "/IpamDriver.RequestPool", `{"AddressSpace":"flannel","Pool":"10.5.9.0/24","Options":{"backend":"udp"},"V6":true}`)
	f.Add("POST", "/IpamDriver.RequestAddress", requestAddress("10.5.1.0/24", "10.5.1.99", otherMAC))
	f.Add("POST", "/NetworkDriver.CreateNetwork", createNetwork(otherID, "10.5.1.9/33", "-1"))
	f.Add("POST", "/NetworkDriver.CreateEndpoint", createEndpoint(netID, otherID, "::ffff:10.5.1.3/120", "02-42-0a-05-01-03"))
	root := f.TempDir()
	w := running(f, root)
	f.Cleanup(func() {
		if err := w.stop(); err != nil {
			f.Error(err)
		}
	})
	before := w.state(f)
	f.Fuzz(func(t *testing.T, method, path, body string) {
		answer, fault := w.do(t, method, path, body)
		if strings.Contains(fault, "internal error") || len(answer) > 4*maxError {
			t.Errorf("%s %q %q: %s", method, path, body, fault)
		}
		after := w.state(t)
		if after == before {
			return
		}
		var fields map[string]any
		if fault != "" || method != http.MethodPost || !changing[path] || json.Unmarshal([]byte(body), &fields) != nil {
			t.Errorf("%s %q %q: %q, and changed\n%s\ninto\n%s", method, path, body, fault, before, after)
		}
		if err := w.stop(); err != nil {
			t.Error(err)
		}
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Fatal(err)
		}
		w = running(t, dir)
		before = w.state(t)
	})
}
