package tool

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

var (
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	prefix = netip.MustParsePrefix
	addr   = netip.MustParseAddr
)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// healthy is a host on which all is well.
func healthy() report.Status {
	return report.Status{
		Build: report.Build{Version: "v1.2.3", Revision: "0123456789abcdef", Go: "go1.26"},
		Store: report.Store{Endpoints: []string{"http://192.0.2.1:2379"}, Asked: true, Connected: true, Since: ago(3 * time.Hour), Embedded: true},
		Host: report.Host{
			Interface: "eth0", PublicIP: addr("192.0.2.1"),
			Loop: report.Loop{Started: ago(50 * time.Hour), Passed: ago(4 * time.Second), Passes: 9, Took: 432 * time.Microsecond},
			Networks: []report.Network{{
				CIDR: prefix("10.5.0.0/16"), Backend: "vxlan", Subnet: prefix("10.5.7.0/24"), MTU: 1450,
				Interface: "eth0", PublicIP: addr("192.0.2.1"), DockerID: "fedcba98765432100123", Bridge: "fl-fedcba987654", Device: "flannel.1",
				Lease: report.Lease{State: report.Held, Since: ago(49 * time.Hour), Renewed: ago(90 * time.Second), Renewals: 40, TTL: 24 * time.Hour},
				Peers: []report.Peer{{Subnet: prefix("10.5.8.0/24"), PublicIP: addr("192.0.2.2"), Backend: "vxlan"}},
				Ports: []report.Port{{Endpoint: "aaaabbbbccccdddd", Addr: addr("10.5.7.2"), MAC: "02:42:0a:05:07:02"}},
				Used:  &report.Addresses{Used: 1, Free: 252},
				Published: []report.Published{{
					Proto: "tcp", Host: netip.MustParseAddrPort("0.0.0.0:8080"), To: netip.MustParseAddrPort("10.5.7.2:80"), Endpoint: "aaaabbbbccccdddd",
				}},
			}},
		},
		Foreign: []report.Foreign{{Port: 8472, Packets: 12}},
	}
}

// dual is healthy with IPv6, which one of its peers has not.
func dual() report.Status {
	s := healthy()
	n := &s.Networks[0]
	n.IPv6CIDR, n.IPv6Subnet, n.PublicIPv6, n.MTU = prefix("fd00:5::/48"), prefix("fd00:5:0:7::/64"), addr("fd00:c0::1"), 1430
	n.Peers[0].IPv6Subnet, n.Peers[0].PublicIPv6 = prefix("fd00:5:0:8::/64"), addr("fd00:c0::2")
	n.Peers = append(n.Peers, report.Peer{Subnet: prefix("10.5.9.0/24"), PublicIP: addr("192.0.2.3"), Backend: "vxlan"})
	n.Ports[0].IPv6 = addr("fd00:5:0:7::2")
	n.Published = append(n.Published, report.Published{
		Proto: "tcp", Host: netip.MustParseAddrPort("[::]:8080"), To: netip.MustParseAddrPort("[fd00:5:0:7::2]:80"), Endpoint: n.Ports[0].Endpoint,
	})
	bare := *n
	bare.Name, bare.IPv6Subnet, bare.PublicIPv6, bare.Peers, bare.Ports = "bare", netip.Prefix{}, netip.Addr{}, bare.Peers[1:], nil
	bare.Published = nil
	tunnel := *n
	tunnel.Name, tunnel.Backend, tunnel.PublicIPv6, tunnel.Peers, tunnel.Ports = "tunnel", "udp", netip.Addr{}, nil, nil
	tunnel.Published = nil
	s.Networks = append(s.Networks, bare, tunnel)
	return s
}

// ill is a host with something of everything.
func ill() report.Status {
	s := healthy()
	s.Store.Connected, s.Store.Error = false, "no answer"
	s.Loop.Failures = []report.Failure{{Object: "docker-user", Error: "legacy"}}
	s.Loop.Repairs = []report.Repair{{Kind: "link", Count: 2, Last: ago(time.Minute)}, {Kind: "route", Count: 1, Last: ago(time.Hour)}}
	n := &s.Networks[0]
	n.Lease.State, n.Lease.TakenBy = report.Taken, addr("192.0.2.200")
	for i := range 30 {
		n.Peers = append(n.Peers, report.Peer{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(100 + i), 0}), 24), PublicIP: addr("192.0.2.9"), Backend: "vxlan"})
	}
	n.Peers = append(n.Peers, report.Peer{Subnet: prefix("10.5.201.0/24"), PublicIP: addr("192.0.2.201"), Backend: "warp", Skipped: `uses backend "warp"`})
	n.Skipped = []report.Skipped{{Key: "10.5.201.0/24", Reason: `uses backend "warp"`, Since: ago(time.Second)}}
	s.Problems = []report.Finding{{Text: "ALARM: the subnet is another host's", Next: "docker network rm fedcba987654"}}
	s.Notes = []report.Finding{{Text: "etcd does not answer"}}
	return s
}

func clusters() []report.Cluster {
	return []report.Cluster{
		{CIDR: prefix("10.5.0.0/16"), Backend: "vxlan", Leases: []report.ClusterLease{
			{Subnet: prefix("10.5.7.0/24"), PublicIP: addr("192.0.2.1"), Backend: "vxlan", TTL: 24 * time.Hour, Left: 23*time.Hour + 40*time.Minute, Here: true},
			{Subnet: prefix("10.5.8.0/24"), PublicIP: addr("192.0.2.2"), Backend: "vxlan", Reserved: true},
			{Subnet: prefix("10.5.9.0/24"), PublicIP: addr("192.0.2.1"), Backend: "warp", Here: true, Odd: []string{"PublicIP also of 10.5.7.0/24"}},
		}, Odd: []report.Odd{{Key: "/coreos.com/network/subnets/junk", Reason: "not a subnet"}}},
		{Network: "blue", CIDR: prefix("10.9.0.0/16"), Backend: "host-gw"},
	}
}

func dualClusters() []report.Cluster {
	all := clusters()
	all[0].IPv6CIDR = prefix("fd00:5::/48")
	all[0].Leases[0].IPv6Subnet, all[0].Leases[0].PublicIPv6 = prefix("fd00:5:0:7::/64"), addr("fd00:c0::1")
	return all
}

// serve is a plugin that answers what it is given, by method and path, and what
// it was asked.
func serve(t *testing.T, answers map[string]any) (socket string, asked *[]string) {
	t.Helper()
	socket, asked = filepath.Join(t.TempDir(), "s"), new([]string)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + strings.TrimPrefix(r.URL.RequestURI(), "/flannel/v1/")
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		*asked = append(*asked, strings.TrimSpace(call+" "+body.String()))
		v, known := answers[call]
		if err, refused := v.(error); refused || !known {
			w.WriteHeader(http.StatusConflict)
			text := "no such call: " + call
			if refused {
				text = err.Error()
			}
			v = map[string]string{"Err": text, "Error": text}
		}
		_ = json.NewEncoder(w).Encode(v)
	})}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		<-ended
	})
	return socket, asked
}

// run is a command with its output and exit code.
func run(t *testing.T, socket string, colours bool, args ...string) (code int, out, said string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = Run(t.Context(), Options{
		Args: append([]string{"flannel", "--socket", socket}, args...), Out: &stdout, Err: &stderr, Colours: colours,
		Build: report.Build{Version: "v1.2.3", Go: "go1.26"}, Now: func() time.Time { return now },
	})
	return code, stdout.String(), stderr.String()
}

// TestText compares what people see with testdata; with UPDATE_GOLDEN=1 it
// writes that.
func TestText(t *testing.T) {
	left := []report.Left{{Given: []netip.Prefix{prefix("10.5.7.0/24")}, Reserved: []netip.Prefix{prefix("10.5.8.0/24")}}}
	for _, c := range []struct {
		name    string
		status  report.Status
		colours bool
		args    string
		code    int
	}{
		{"status", healthy(), false, "status", 0},
		{"status-ill", ill(), false, "status", 1},
		{"status-all", ill(), false, "status --all", 1},
		{"status-colours", ill(), true, "status", 1},
		{"status-json", healthy(), true, "status --json", 0},
		{"status-broken", report.Status{Build: report.Build{Version: "v1"}, Problems: []report.Finding{{Text: "setting MTU=huge", Next: "docker plugin set"}}}, false, "status", 1},
		{"leases", healthy(), false, "leases", 0},
		{"leases-default", healthy(), false, "leases default", 0},
		{"env", healthy(), false, "env", 0},
		{"env-json", healthy(), false, "env default --json", 0},
		{"network-ls", healthy(), false, "network ls", 0},
		{"network-ls-shared", healthy(), false, "network ls --socket SHARED", 0},
		{"network-rm", healthy(), false, "network rm blue", 0},
		{"network-rm-shared", healthy(), false, "network rm navy", 0},
		{"network-create", healthy(), false, "network create blue --subnet 10.9.0.0/16", 0},
		{"leave", healthy(), false, "leave", 0},
		{"status-dual", dual(), false, "status", 0},
		{"status-dual-json", dual(), false, "status --json", 0},
		{"leases-dual", dual(), false, "leases", 0},
		{"network-ls-dual", dual(), false, "network ls", 0},
		{"env-dual", dual(), false, "env", 0},
		{"version", healthy(), false, "version", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := clusters()
			if strings.Contains(c.name, "dual") {
				all = dualClusters()
			}
			socket, _ := serve(t, map[string]any{
				"GET status": c.status, "GET leases": all, "GET leases?network=": all[:1], "GET networks": all,
				"POST leave": left, "POST networks": clusters()[1], "DELETE networks?network=blue": report.Removed{Network: "blue"},
				"DELETE networks?network=navy": report.Removed{Network: "blue", Docker: []string{"navy", "sea"}},
			})
			shared := clusters()
			shared[1].Docker = []string{"navy", "sea"}
			other, _ := serve(t, map[string]any{"GET networks": shared})
			c.args = strings.ReplaceAll(c.args, "SHARED", other)
			code, out, said := run(t, socket, c.colours, strings.Fields(c.args)...)
			if code != c.code || said != "" {
				t.Errorf("exit code %d, want %d; %s", code, c.code, said)
			}
			path := filepath.Join("testdata", c.name+".txt")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if out != string(want) {
				t.Errorf("it prints\n%s\nand not\n%s", out, want)
			}
		})
	}
}

type refused string

func (r refused) Error() string { return string(r) }

func TestExitCodes(t *testing.T) {
	socket, asked := serve(t, map[string]any{
		"GET status": healthy(), "GET networks": clusters(), "POST leave": refused("remove it first, with: docker network rm 0123"),
		"DELETE networks?network=": refused("leases stand in it"), "GET leases": "no list",
	})
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"leave", Wrong, "docker network rm 0123"},
		{"leave --network default", Wrong, "docker network rm 0123"},
		{"network rm default", Wrong, "leases stand in it"},
		{"env blue", Wrong, "this host is in default"},
		{"leases", Unreachable, "of the same version"},
		{"stats", Usage, `unknown command "stats"`},
		{"network frob", Usage, `unknown command "frob"`},
		{"status now", Usage, "now"},
		{"status --yaml", Usage, "--yaml"},
		{"network rm", Usage, "accepts 1 arg"},
		{"status --socket /nowhere/s", Unreachable, "docker plugin enable docker-flannel"},
	} {
		code, out, said := run(t, socket, false, strings.Fields(c.args)...)
		if code != c.code || out != "" || !strings.HasPrefix(said, "flannel: ") || !strings.Contains(said, c.says) {
			t.Errorf("%s: exit code %d, prints %q and says %q; want %d and %q", c.args, code, out, said, c.code, c.says)
		}
	}
	old, _ := serve(t, map[string]any{"GET status": map[string]string{"Err": "setting MTU=huge"}})
	if code, out, said := run(t, old, false, "status"); code != Wrong || out != "" || !strings.Contains(said, "MTU=huge") {
		t.Errorf("a plugin that knows no such call: exit code %d, prints %q and says %q", code, out, said)
	}
	for _, call := range []string{`POST leave {"Network":null}`, `POST leave {"Network":""}`} {
		if !slices.Contains(*asked, call) {
			t.Errorf("not asked: %s; asked: %q", call, *asked)
		}
	}
}

func TestHelpSaysTheExitCodes(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}, {"help"}} {
		if code, out, _ := run(t, "/nowhere/s", false, args...); code != Fine || !strings.Contains(out, "3 the plugin does not answer") {
			t.Errorf("%v: %d %s", args, code, out)
		}
	}
}

func TestAsADockerCommand(t *testing.T) {
	socket, _ := serve(t, map[string]any{"GET status": healthy(), "GET networks": clusters()})
	for _, c := range []struct{ args, says string }{
		{"/x/docker-flannel docker-cli-plugin-metadata", `"SchemaVersion":"0.1.0"`},
		{"/x/docker-flannel flannel env --socket " + socket, "FLANNEL_MTU=1450"},
		{"/x/docker-flannel --context other flannel env --socket " + socket, "FLANNEL_MTU=1450"},
		{"/x/docker-flannel flannel --help", "docker flannel [command]"},
		{"/x/docker-flannel __complete flannel sta", "status\t"},
		{"/x/docker-flannel __complete flannel --socket " + socket + " leases b", "blue\n"},
		{"/x/flannel __complete network r", "rm\t"},
		{"/x/flannel completion bash", "complete"},
	} {
		var out, said bytes.Buffer
		code := Run(t.Context(), Options{Args: strings.Fields(c.args), Out: &out, Err: &said, Now: time.Now})
		if code != Fine || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: %d %s %s", c.args, code, &out, &said)
		}
	}
}

func TestBrief(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": -time.Minute, "59s": 59*time.Second + 999*time.Millisecond, "1m": time.Minute, "3m2s": 182 * time.Second,
		"1d": 24 * time.Hour, "5h12m": 5*time.Hour + 12*time.Minute, "12d1h": 289 * time.Hour,
	} {
		if got := brief(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

func TestReached(t *testing.T) {
	for _, c := range []struct {
		reach *report.Reach
		want  cell
	}{
		{nil, cell{"reachable", green}},
		{&report.Reach{RTT: 210 * time.Microsecond, Sent: 10}, cell{"reachable, 0.21 ms", green}},
		{&report.Reach{RTT: 12 * time.Millisecond, Sent: 10, Lost: 4}, cell{"reachable, 12.00 ms, 40% lost", yellow}},
		{&report.Reach{Sent: 3, Lost: 3}, cell{"silent: 3 echoes lost; see flannel doctor", red}},
	} {
		if got := reached(c.reach); got != c.want {
			t.Errorf("%+v: %v, want %v", c.reach, got, c.want)
		}
	}
}
