package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/driver"
	"github.com/docker-flannel/docker-flannel/ipam"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// rooms stands for the overlay room behind both clerks.
type rooms struct{ panics bool }

func (r rooms) Acquire(context.Context, overlay.Request) (overlay.Network, error) {
	if r.panics {
		panic("out of cheese")
	}
	return overlay.Network{
		CIDR: netip.MustParsePrefix("10.5.0.0/16"), Subnet: netip.MustParsePrefix("10.5.7.0/24"),
		Gateway: netip.MustParseAddr("10.5.7.1"), MTU: 1450,
	}, nil
}
func (rooms) Release(context.Context, netip.Prefix) error                      { return nil }
func (rooms) Attach(context.Context, overlay.Bridge) error                     { return errors.New("no room") }
func (rooms) Attached(netip.Prefix) bool                                       { return true }
func (rooms) Taken(netip.Prefix, netip.Addr) bool                              { return false }
func (rooms) Detach(context.Context, string) error                             { return nil }
func (rooms) AddPort(context.Context, overlay.Port) error                      { return nil }
func (rooms) RemovePort(context.Context, string, string) error                 { return nil }
func (rooms) Publish(context.Context, string, string, []overlay.Publish) error { return nil }
func (rooms) Join(context.Context, string, string) (overlay.Joined, error) {
	return overlay.Joined{}, nil
}

func quietLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func handler(t testing.TB, r rooms) http.Handler {
	t.Helper()
	addrs, err := ipam.New(filepath.Join(t.TempDir(), "addresses.json"), r)
	if err != nil {
		t.Fatal(err)
	}
	return routes(driver.New(r, r, addrs), addrs, quietLog())
}

// post makes one call and returns the status and the answer's fields.
func post(t testing.TB, h http.Handler, path, body string) (int, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	var fields map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &fields); err != nil {
		t.Fatalf("%s answers %q, which is not JSON: %v", path, w.Body, err)
	}
	return w.Code, fields
}

const id = `"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"`

func TestRoutes(t *testing.T) {
	h := handler(t, rooms{})
	for _, c := range []struct{ path, body, answer string }{
		{"/Plugin.Activate", "", `{"Implements":["NetworkDriver","IpamDriver"]}`},
		{"/NetworkDriver.GetCapabilities", "", `{"ConnectivityScope":"global","Scope":"local"}`},
		{"/IpamDriver.GetCapabilities", "", `{"RequiresMACAddress":true,"RequiresRequestReplay":false}`},
		{"/IpamDriver.GetDefaultAddressSpaces", "", `{"GlobalDefaultAddressSpace":"flannel","LocalDefaultAddressSpace":"flannel"}`},
		{"/IpamDriver.RequestPool", `{"AddressSpace":"flannel"}`, `{"Data":{"com.docker.network.gateway":"10.5.7.1/24"},"Pool":"10.5.7.0/24","PoolID":"10.5.7.0/24"}`},
		{"/IpamDriver.RequestAddress", `{"PoolID":"10.5.7.0/24"}`, `{"Address":"10.5.7.2/24","Data":null}`},
		{"/IpamDriver.ReleaseAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.2"}`, `{}`},
		{"/IpamDriver.ReleasePool", `{"PoolID":"10.5.7.0/24"}`, `{}`},
		{"/NetworkDriver.DeleteNetwork", `{"NetworkID":` + id + `}`, `{}`},
		{"/NetworkDriver.ProgramExternalConnectivity", `{"NetworkID":` + id + `,"EndpointID":` + id + `}`, `{}`},
		{"/NetworkDriver.DiscoverNew", `{"DiscoveryType":1}`, `{}`},
	} {
		status, fields := post(t, h, c.path, c.body)
		got, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if status != http.StatusOK || string(got) != c.answer {
			t.Errorf("%s %s: %d %s, want %s", c.path, c.body, status, got, c.answer)
		}
	}
}

func TestBadCalls(t *testing.T) {
	h := handler(t, rooms{})
	for _, c := range []struct {
		name, path, body string
		status           int
		says             string
	}{
		{"empty body", "/NetworkDriver.Join", "", 400, "empty"},
		{"null body", "/IpamDriver.RequestPool", " null ", 400, "empty"},
		{"junk", "/IpamDriver.RequestPool", "{", 400, "RequestPool"},
		{"another shape", "/NetworkDriver.CreateNetwork", `{"NetworkID":7}`, 400, "NetworkID"},
		{"a large body", "/NetworkDriver.CreateNetwork", `{"NetworkID":"` + strings.Repeat("x", maxBody) + `"}`, 400, "larger than 1048576 bytes"},
		{"an unknown call", "/NetworkDriver.Dance", "{}", 404, "Dance"},
		{"an error of the room", "/NetworkDriver.CreateNetwork", `{"NetworkID":` + id + `,"IPv4Data":[{"AddressSpace":"flannel","Pool":"10.5.7.0/24"}]}`, 200, "no room"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, fields := post(t, h, c.path, c.body)
			text, _ := fields["Err"].(string)
			if status != c.status || !strings.Contains(text, c.says) || fields["Error"] != text {
				t.Errorf("%d %v, want %d with %q", status, fields, c.status, c.says)
			}
		})
	}
}

func TestPanicIsAnswered(t *testing.T) {
	status, fields := post(t, handler(t, rooms{panics: true}), "/IpamDriver.RequestPool", `{"AddressSpace":"flannel"}`)
	if text, _ := fields["Err"].(string); status != http.StatusOK || !strings.Contains(text, "out of cheese") {
		t.Errorf("%d %v", status, fields)
	}
}

func TestBrokenAnswersWithTheReason(t *testing.T) {
	h := broken(errors.New("setting MTU=x: give a number"))
	if _, fields := post(t, h, "/Plugin.Activate", ""); fields["Implements"] == nil {
		t.Errorf("activation gives %v", fields)
	}
	for _, path := range []string{"/NetworkDriver.GetCapabilities", "/IpamDriver.RequestPool", "/NetworkDriver.Join"} {
		if status, fields := post(t, h, path, "{}"); status != http.StatusOK || fields["Err"] != "setting MTU=x: give a number" || fields["Error"] != fields["Err"] {
			t.Errorf("%s: %d %v", path, status, fields)
		}
	}
}

func TestSockets(t *testing.T) {
	dir := t.TempDir()
	paths := Paths{Managed: filepath.Join(dir, "managed", "flannel.sock"), Legacy: filepath.Join(dir, "flannel.sock")}
	stale, err := net.Listen("unix", paths.Legacy)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := listen(t.Context(), paths, quietLog())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.serve(ctx, broken(errors.New("why"))) }()
	for _, path := range []string{paths.Managed, paths.Legacy} {
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}}
		res, err := client.Post("http://plugin/Plugin.Activate", "", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || string(body) != manifest {
			t.Errorf("%s: %q, %v", path, body, err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	second, err := listen(t.Context(), Paths{Managed: filepath.Join(dir, "other.sock"), Legacy: paths.Legacy}, quietLog())
	if err != nil || len(second.listeners) != 1 {
		t.Errorf("a second plugin took the plain name of a living one: %v, %v", second, err)
	}
	second.close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, path := range []string{paths.Managed, paths.Legacy} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind: %v", path, err)
		}
	}
}
