package driver

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// publish makes the engine's call with a list of ports.
func publish(t *testing.T, portmap string) (*nets, error) {
	t.Helper()
	req := &network.ProgramExternalConnectivityRequest{NetworkID: netID, EndpointID: endID}
	if err := json.Unmarshal([]byte(`{"com.docker.network.portmap":`+portmap+`}`), &req.Options); err != nil {
		t.Fatal(err)
	}
	n := &nets{}
	return n, New(n, n, nine).Publish(t.Context(), req)
}

func TestPublish(t *testing.T) {
	var both netip.Addr
	any4, one, any6, six := netip.IPv4Unspecified(), netip.MustParseAddr("192.0.2.1"), netip.IPv6Unspecified(), netip.MustParseAddr("fd00::1")
	n, err := publish(t, `[
		{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8080},
		{"Proto":17,"IP":"","Port":53,"HostIP":"192.0.2.1","HostPort":53,"HostPortEnd":53},
		{"Proto":132,"IP":"","Port":9,"HostIP":"0.0.0.0","HostPort":9000,"HostPortEnd":9002},
		{"Proto":6,"IP":"","Port":80,"HostIP":"::","HostPort":8081,"HostPortEnd":8081},
		{"Proto":6,"IP":"","Port":80,"HostIP":"fd00::1","HostPort":8082,"HostPortEnd":8082},
		{"Proto":6,"IP":"","Port":80,"HostIP":"::ffff:192.0.2.1","HostPort":8083,"HostPortEnd":8083},
		{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":0,"HostPortEnd":0}]`)
	want := []overlay.Publish{
		{Proto: kernel.TCP, Port: 80, Host: both, First: 8080, Last: 8080},
		{Proto: kernel.UDP, Port: 53, Host: one, First: 53, Last: 53},
		{Proto: kernel.SCTP, Port: 9, Host: any4, First: 9000, Last: 9002},
		{Proto: kernel.TCP, Port: 80, Host: any6, First: 8081, Last: 8081},
		{Proto: kernel.TCP, Port: 80, Host: six, First: 8082, Last: 8082},
		{Proto: kernel.TCP, Port: 80, Host: one, First: 8083, Last: 8083},
		{Proto: kernel.TCP, Port: 80, Host: both},
	}
	if err != nil || !slices.Equal(n.ports, want) {
		t.Errorf("published %+v, want %+v; %v", n.ports, want, err)
	}
	if n, err := publish(t, `null`); err != nil || n.ports != nil {
		t.Errorf("published %+v, %v", n.ports, err)
	}
}

func TestPublishRefuses(t *testing.T) {
	for _, c := range []struct{ portmap, says string }{
		{`"8080:80"`, "correct -p"},
		{`[{"Proto":6,"Port":80,"HostIP":"::1","HostPort":8080}]`, "-p [::1]:8080:80/tcp: host address ::1"},
		{`[{"Proto":6,"Port":80,"HostIP":"fe80::1","HostPort":8080}]`, "host address fe80::1"},
		{`[{"Proto":6,"Port":80,"HostIP":"here","HostPort":8080}]`, `"here"`},
		{`[{"Proto":1,"Port":80,"HostPort":8080}]`, "give tcp, udp or sctp"},
		{`[{"Proto":6,"Port":0,"HostPort":8080,"HostPortEnd":8090}]`, "-p 8080-8090:0/tcp"},
		{`[{"Proto":6,"Port":70000}]`, "correct -p"},
	} {
		if n, err := publish(t, c.portmap); err == nil || !strings.Contains(err.Error(), c.says) || n.ports != nil {
			t.Errorf("%s: error %v, want one with %q; published %+v", c.portmap, err, c.says, n.ports)
		}
	}
}
