package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// desk is a world with the operator's calls beside the engine's.
func desk(t *testing.T) (*world, http.Handler, *metrics) {
	t.Helper()
	w := newWorld(t)
	m := newMetrics()
	p := &parts{overlay: w.overlay, ipam: w.ipam, link: newLink([]string{"http://root:s3cret@192.0.2.1:2379"}, nil), metrics: m, foreign: func() (map[int]uint64, error) { return map[int]uint64{8472: 3}, nil }}
	p.pulse = newPulse(w.overlay.Report, slog.New(slog.DiscardHandler))
	p.store = watched{&w.store, p.link, m.asked}
	watch := &monitor{metrics: m, log: quietLog()}
	watch.status = func() report.Status { return p.status(watch) }
	m.status = watch.status
	op := &operator{status: watch.status, store: p.store, overlay: w.overlay, log: quietLog()}
	return w, op.beside(measured(w, m.called)), m
}

// ask makes an operator's call.
func ask(t *testing.T, h http.Handler, method, path, body string, into any) (status int, text string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	if into != nil && w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, w.Body)
		}
	}
	return w.Code, w.Body.String()
}

// docked makes a Docker network as the engine does.
func docked(t *testing.T, h http.Handler) {
	t.Helper()
	for _, c := range [][2]string{
		{"/IpamDriver.RequestPool", `{"AddressSpace":"flannel"}`},
		{"/NetworkDriver.CreateNetwork", `{"NetworkID":` + id + `,"IPv4Data":[{"AddressSpace":"flannel","Pool":"10.5.1.0/24"}]}`},
	} {
		if status, fields := post(t, h, c[0], c[1]); status != http.StatusOK || fields["Err"] != nil {
			t.Fatalf("%s: %d %v", c[0], status, fields)
		}
	}
}

func TestOperatorStatus(t *testing.T) {
	w, h, _ := desk(t)
	docked(t, h)
	var s report.Status
	status, text := ask(t, h, "GET", "/flannel/v1/status", "", &s)
	if status != http.StatusOK || len(s.Problems) > 0 || !s.Store.Connected || len(s.Networks) != 1 || s.Networks[0].DockerID != strings.Trim(id, `"`) ||
		s.Networks[0].Used == nil || s.Networks[0].Used.Free == 0 || s.Loop.Passes == 0 || s.Build.Go == "" {
		t.Errorf("%d %s", status, text)
	}
	if strings.Contains(text, "s3cret") || !strings.Contains(text, "http://(hidden)@192.0.2.1:2379") {
		t.Errorf("endpoints in %s", text)
	}
	// Only what does not answer is asked again, and is a note, no problem.
	w.store.down = context.DeadlineExceeded
	ask(t, h, "GET", "/flannel/v1/networks", "", nil)
	if status, text = ask(t, h, "GET", "/flannel/v1/status", "", &s); status != http.StatusOK || s.Store.Connected || len(s.Problems) > 0 || len(s.Notes) == 0 {
		t.Errorf("without etcd: %d %s", status, text)
	}
}

func TestOperatorCalls(t *testing.T) {
	w, h, _ := desk(t)
	docked(t, h)
	w.await(t, "the interface", func(string) bool { return w.overlay.Report().PublicIP.IsValid() })
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "networks", "", 200, `"10.9.0.0/16"`},
		{"GET", "leases?network=", "", 200, `"Here":true`},
		{"GET", "leases?network=red", "", 404, "network red does not exist"},
		{"DELETE", "networks", "", 400, "?network=NAME"},
		{"DELETE", "networks?network=", "", 409, "host 192.0.2.1"},
		{"DELETE", "networks?network=red", "", 404, "does not exist"},
		{"POST", "networks", `{"Network":"subnets"}`, 409, "network name"},
		{"POST", "networks", `{"Network":"red","Subnet":"10.9.0.1/16"}`, 400, "--subnet 10.9.0.1/16"},
		{"POST", "leave", "", 400, "empty"},
		{"POST", "leave", `{"Network":7}`, 400, "Network"},
		{"POST", "leave", `{"Network":""}`, 409, "docker network rm 0123456789ab"},
		{"POST", "leave", `{}`, 409, "docker network rm 0123456789ab"},
		{"POST", "status", "{}", 404, "not a call"},
		{"GET", "../secret", "", 404, "not a call"},
	} {
		status, text := ask(t, h, c.method, operatorPath+c.path, c.body, nil)
		if status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %s: %d %s, want %d with %q", c.method, c.path, c.body, status, text, c.status, c.says)
		}
	}
	if w.store.text() == "" {
		t.Error("the lease is gone")
	}
	w.store.down = errors.New("etcd says no")
	for _, path := range []string{"networks", "leases"} {
		if status, text := ask(t, h, "GET", operatorPath+path, "", nil); status != http.StatusBadGateway || !strings.Contains(text, "etcd says no") {
			t.Errorf("%s without etcd: %d %s", path, status, text)
		}
	}
}

func TestOperatorLeaves(t *testing.T) {
	w, h, _ := desk(t)
	if status, text := ask(t, &operator{status: func() report.Status { return report.Status{} }}, "POST", "/flannel/v1/leave", "{}", nil); status != http.StatusServiceUnavailable || !strings.Contains(text, "IFACE") {
		t.Errorf("without an interface: %d %s", status, text)
	}
	w.await(t, "the interface", func(string) bool { return w.overlay.Report().PublicIP.IsValid() })
	w.store.lease = &overlay.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), PublicIP: netip.MustParseAddr("192.0.2.1")}
	var left []report.Left
	status, text := ask(t, h, "POST", "/flannel/v1/leave", "{}", &left)
	if status != http.StatusOK || len(left) != 1 || len(left[0].Given) != 1 || w.store.text() != "" {
		t.Errorf("%d %s; the store holds %q", status, text, w.store.text())
	}
	if status, text := ask(t, h, "POST", "/flannel/v1/leave", "{}", &left); status != http.StatusOK || len(left) != 0 {
		t.Errorf("again: %d %s", status, text)
	}
}

func TestOperatorOfABrokenPlugin(t *testing.T) {
	why := errors.New("setting MTU=huge: give a number")
	s := brokenStatus(why)
	op := &operator{status: func() report.Status { return s }, why: why, log: quietLog()}
	h := op.beside(broken(why))
	var got report.Status
	if status, text := ask(t, h, "GET", "/flannel/v1/status", "", &got); status != http.StatusOK || len(got.Problems) != 1 || !strings.Contains(got.Problems[0].Text, "MTU=huge") {
		t.Errorf("%d %s", status, text)
	}
	if status, text := ask(t, h, "POST", "/flannel/v1/leave", "{}", nil); status != http.StatusServiceUnavailable || !strings.Contains(text, "MTU=huge") {
		t.Errorf("%d %s", status, text)
	}
	if _, fields := post(t, h, "/IpamDriver.RequestPool", "{}"); !strings.Contains(fields["Err"].(string), "MTU=huge") {
		t.Errorf("the engine is told %v", fields)
	}
}

func TestOperatorsPanic(t *testing.T) {
	h := (&operator{status: func() report.Status { panic("out of cheese") }, log: quietLog()}).beside(http.NotFoundHandler())
	if status, text := ask(t, h, "GET", "/flannel/v1/status", "", nil); status != http.StatusInternalServerError || !strings.Contains(text, "out of cheese") {
		t.Errorf("%d %s", status, text)
	}
}

func TestJudge(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	fine := report.Loop{Started: now.Add(-time.Hour), Passed: now, Passes: 9}
	network := func(l report.Lease) report.Host {
		return report.Host{Loop: fine, Networks: []report.Network{{Subnet: netip.MustParsePrefix("10.5.7.0/24"), DockerID: "0123456789abcdef", Lease: l}}}
	}
	up, down := report.Store{Asked: true, Connected: true}, report.Store{Asked: true, Endpoints: []string{"http://a:1"}, Since: now, Error: "no answer"}
	for _, c := range []struct {
		name           string
		status         report.Status
		problem, notes string // parts; empty for none
	}{
		{"fine", report.Status{Host: network(report.Lease{State: report.Held}), Store: up}, "", ""},
		{"no network", report.Status{Host: report.Host{Loop: fine}}, "", ""},
		{"starting", report.Status{Host: report.Host{Loop: report.Loop{Started: now}}}, "starting", ""},
		{"stuck", report.Status{Host: report.Host{Loop: report.Loop{Started: now.Add(-time.Hour), Passed: now.Add(-3 * time.Minute), Passes: 1}}}, "for 3m0s", ""},
		{"kernel", report.Status{Host: report.Host{Loop: report.Loop{Started: now, Passes: 1, Failures: []report.Failure{{Object: "docker-user", Error: "legacy"}}}}}, "docker-user: legacy", ""},
		{"taken", report.Status{Host: network(report.Lease{State: report.Taken, TakenBy: netip.MustParseAddr("192.0.2.9")}), Store: up}, "host 192.0.2.9", ""},
		{"taken, then etcd away", report.Status{Host: network(report.Lease{State: report.Taken}), Store: down}, "cannot be read", "http://a:1"},
		{"lost", report.Status{Host: network(report.Lease{State: report.Lost}), Store: up}, "claimed back", ""},
		{"etcd away", report.Status{Host: network(report.Lease{State: report.Unconfirmed, Error: "no answer"}), Store: down}, "", "since 2026-03-01T12:00:00Z"},
		{"not renewed", report.Status{Host: network(report.Lease{State: report.Unconfirmed, Error: "permission denied"}), Store: up}, "permission denied", ""},
		{"not confirmed", report.Status{Host: network(report.Lease{State: report.Unconfirmed}), Store: up}, "", "not confirmed"},
		{"returning", report.Status{Host: network(report.Lease{State: report.Returning}), Store: down}, "", "given back"},
		{"blocked", report.Status{Host: report.Host{Loop: fine, Networks: []report.Network{{Lease: report.Lease{State: report.Held}, Blocked: "port in use"}}}, Store: up}, "port in use", ""},
		{"skipped", report.Status{Host: report.Host{Loop: fine, Networks: []report.Network{{Lease: report.Lease{State: report.Held}, Skipped: make([]report.Skipped, 2)}}}, Store: up}, "", "2 of etcd's"},
	} {
		problems, notes := judge(c.status, now)
		for _, got := range []struct {
			what  string
			found []report.Finding
			want  string
		}{{"problems", problems, c.problem}, {"notes", notes, c.notes}} {
			var text []string
			for _, f := range got.found {
				text = append(text, f.Text)
			}
			if all := strings.Join(text, "\n"); (got.want == "") != (all == "") || !strings.Contains(all, got.want) {
				t.Errorf("%s: %s %q, want %q", c.name, got.what, all, got.want)
			}
		}
	}
}
