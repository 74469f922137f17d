package plugin

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// eventful is a host that has something of everything.
func eventful() report.Status {
	now := time.Unix(1_800_000_000, 0)
	return report.Status{
		Build:   report.Build{Version: "v1", Revision: "abc", Go: "go1"},
		Store:   report.Store{Asked: true, Connected: true},
		Foreign: []report.Foreign{{Port: 8472, Packets: 6}},
		Host: report.Host{
			Loop: report.Loop{Passes: 1, Failures: []report.Failure{{}}, Repairs: []report.Repair{{Kind: "route", Count: 3}}},
			Networks: []report.Network{
				{
					Backend: "vxlan", Device: "flannel.1", Leases: 3, Skips: 5, Skipped: make([]report.Skipped, 2),
					Peers: []report.Peer{{Reach: &report.Reach{RTT: 2 * time.Millisecond, Sent: 10, Lost: 3}}, {Skipped: "warp"}}, Ports: make([]report.Port, 4), Used: &report.Addresses{Used: 4, Free: 249},
					Lease: report.Lease{State: report.Held, Since: now, Renewed: now, Renewals: 7, Failures: 1, TTL: time.Minute},
				},
				{Name: "blue", Backend: "host-gw", Bridge: "fl-1", Device: "fl-1", Lease: report.Lease{State: report.Taken, TakenBy: netip.MustParseAddr("192.0.2.9")}},
				{Name: "red", Backend: "udp", Device: "flannel0", Tunnel: &report.Traffic{SentPackets: 1, Drops: map[string]uint64{"no-route": 2}}},
				{Name: "gone", Backend: "vxlan", Device: "flannel.9"},
			},
		},
	}
}

func eventfulMetrics() *metrics {
	m := newMetrics()
	m.status = eventful
	m.traffic = func(device string) (kernel.Traffic, error) {
		if device == "flannel.9" {
			return kernel.Traffic{}, errors.New("no such device")
		}
		return kernel.Traffic{SentPackets: 10, ReceivedPackets: 20, SendDropped: 3}, nil
	}
	m.passed(time.Millisecond)
	m.called("NetworkDriver.Join", time.Millisecond, true)
	m.asked("claim", time.Second, true)
	return m
}

// scrape is what /metrics answers.
func scrape(t *testing.T, m *metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	(&monitor{metrics: m}).handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	text := scrape(t, eventfulMetrics())
	for _, line := range []string{
		`flannel_build_info{go="go1",revision="abc",version="v1"} 1`,
		`flannel_lease_held{network=""} 1`, `flannel_lease_held{network="blue"} 0`,
		`flannel_lease_conflict{network=""} 0`, `flannel_lease_conflict{network="blue"} 1`,
		`flannel_lease_renewals_total{network="",outcome="error"} 1`,
		`flannel_lease_renewed_timestamp_seconds{network=""} 1.8e+09`, `flannel_lease_ttl_seconds{network=""} 60`,
		`flannel_leases{network=""} 3`, `flannel_peers{network="",state="skipped"} 1`, `flannel_peers{network="",state="reachable"} 1`,
		`flannel_peer_rtt_seconds{network="",public_ip="invalid IP",subnet="invalid Prefix"} 0.002`,
		`flannel_peer_loss_ratio{network="",public_ip="invalid IP",subnet="invalid Prefix"} 0.3`,
		`flannel_skipped_entries{network=""} 2`, `flannel_skipped_entries_total{network=""} 5`,
		`flannel_addresses{network="",state="free"} 249`, `flannel_endpoints{network=""} 4`,
		`flannel_packets_total{backend="vxlan",direction="sent",network=""} 10`,
		`flannel_packets_total{backend="host-gw",direction="sent",network="blue"} 20`,
		`flannel_packets_total{backend="udp",direction="sent",network="red"} 1`,
		`flannel_drops_total{backend="vxlan",network="",reason="device-tx"} 3`, `flannel_drops_total{backend="udp",network="red",reason="no-route"} 2`,
		`flannel_foreign_packets_total{port="8472"} 6`, `flannel_reconcile_failures 1`, `flannel_reconcile_duration_seconds_count 1`, `flannel_repairs_total{kind="route"} 3`,
		`flannel_rpc_duration_seconds_count{call="NetworkDriver.Join",outcome="error"} 1`,
		`flannel_store_connected 1`, `flannel_store_errors_total{operation="claim"} 1`, `flannel_ready 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("lacks %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestEveryMetricIsThere scrapes all that is documented and nothing else of ours.
func TestEveryMetricIsThere(t *testing.T) {
	m := eventfulMetrics()
	found, want := map[string]string{}, map[string]string{}
	all, err := m.registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if strings.HasPrefix(f.GetName(), "flannel_") {
			found[f.GetName()] = strings.ToLower(f.GetType().String())
		}
	}
	for _, f := range families() {
		want[f.name] = f.kind
	}
	if !maps.Equal(found, want) {
		t.Errorf("scraped %v\nwant %v", slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(want)))
	}
	problems, err := testutil.CollectAndLint(m)
	if err != nil || len(problems) > 0 {
		t.Errorf("by Prometheus' conventions: %v %v", problems, err)
	}
}

// TestMetricsAreDocumented compares docs/metrics.md with the code; with
// UPDATE_DOCS=1 it writes the table.
func TestMetricsAreDocumented(t *testing.T) {
	const path, begin, end = "../docs/metrics.md", "<!-- metrics: made by UPDATE_DOCS=1 go test ./plugin -->\n", "<!-- /metrics -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	table, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s lacks %s or %s", path, begin, end)
	}
	want := markdown(families())
	if table == want {
		return
	}
	if os.Getenv("UPDATE_DOCS") == "" {
		t.Fatalf("%s is not what the code says; make it so with: UPDATE_DOCS=1 go test ./plugin", path)
	}
	if err := os.WriteFile(path, []byte(head+begin+want+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCallsAreMeasured(t *testing.T) {
	_, h, m := desk(t)
	docked(t, h)
	post(t, h, "/NetworkDriver.Join", "")
	post(t, h, "/Nobody.Knows/"+strings.Repeat("x", 99), "{}")
	m.traffic = func(string) (kernel.Traffic, error) { return kernel.Traffic{}, errors.New("none") }
	text := scrape(t, m)
	for call, outcome := range map[string]string{"NetworkDriver.CreateNetwork": "ok", "NetworkDriver.Join": "error", "unknown": "error"} {
		if line := fmt.Sprintf("flannel_rpc_duration_seconds_count{call=%q,outcome=%q} 1\n", call, outcome); !strings.Contains(text, line) {
			t.Errorf("lacks %s in\n%s", line, text)
		}
	}
	if strings.Contains(text, "Nobody") {
		t.Error("a path that anybody may choose is a label")
	}
}
