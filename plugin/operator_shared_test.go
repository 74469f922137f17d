package plugin

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// atlas is a registry of networks, each with the hosts that have a lease in it.
type atlas struct {
	shelf
	lock    sync.Mutex
	hosts   map[string][]string
	changed chan struct{} // closed by a change
}

func (a *atlas) Networks(context.Context) (map[string]overlay.Config, error) {
	a.lock.Lock()
	defer a.lock.Unlock()
	all := map[string]overlay.Config{}
	for name := range a.hosts {
		all[name] = overlay.Config{}
	}
	return all, nil
}

func (a *atlas) Survey(ctx context.Context) (all []report.Cluster, err error) {
	known, err := a.Networks(ctx)
	for name := range known {
		all = append(all, report.Cluster{Network: name})
	}
	return all, err
}

func (a *atlas) Leases(_ context.Context, network string) (report.Cluster, error) {
	a.lock.Lock()
	defer a.lock.Unlock()
	hosts, known := a.hosts[network]
	if !known {
		return report.Cluster{}, overlay.ErrNoConfig
	}
	return report.Cluster{Network: network, Leases: make([]report.ClusterLease, len(hosts))}, nil
}

func (a *atlas) Remove(_ context.Context, network string) error {
	a.lock.Lock()
	defer a.lock.Unlock()
	if len(a.hosts[network]) > 0 {
		return fmt.Errorf("leases stand in it: %v", a.hosts[network])
	}
	delete(a.hosts, network)
	return nil
}

func (a *atlas) Watch(ctx context.Context, network string, emit func(overlay.Snapshot)) error {
	for ctx.Err() == nil {
		a.lock.Lock()
		leases, changed := make([]overlay.Lease, len(a.hosts[network])), a.changed
		a.lock.Unlock()
		emit(overlay.Snapshot{Leases: leases})
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// left is a host that gives its lease back.
func (a *atlas) left(network string, hosts ...string) {
	a.lock.Lock()
	defer a.lock.Unlock()
	a.hosts[network] = hosts
	close(a.changed)
	a.changed = make(chan struct{})
}

func TestOperatorRemovesEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard()
		a := &atlas{hosts: map[string][]string{"": {"192.0.2.1"}, "red": {"192.0.2.1", "192.0.2.2"}, "bare": {}, "alone": {"192.0.2.3"}}, changed: make(chan struct{})}
		for _, e := range []blueprint.Entry{
			{ID: "1", Network: blueprint.Network{Name: "blue"}},
			{ID: "2", Network: blueprint.Network{Name: "crimson", Flannel: "red"}},
		} {
			if done, err := b.Publish(t.Context(), e); err != nil || !done {
				t.Fatal(done, err)
			}
		}
		o := &operator{store: a, shared: b, status: func() report.Status { return report.Status{} }, log: quietLog()}
		call := func(name string, status int, says ...string) (took time.Duration) {
			t.Helper()
			began := time.Now()
			got, text := ask(t, o, "DELETE", operatorPath+"networks?network="+name, "", nil)
			for _, part := range says {
				if got != status || !strings.Contains(text, part) {
					t.Errorf("%q: %d %s, want %d with %q", name, got, text, status, part)
				}
			}
			return time.Since(began)
		}
		var all []report.Cluster
		if status, text := ask(t, o, "GET", operatorPath+"networks", "", &all); status != http.StatusOK || !strings.Contains(text, `"Docker":["crimson"]`) {
			t.Errorf("%d %s", status, text)
		}
		if took := call("alone", http.StatusConflict, "192.0.2.3"); took > 0 {
			t.Errorf("nothing to wait for, and it took %s", took)
		}
		call("none", http.StatusNotFound, "does not exist")
		host := netip.MustParseAddr("192.0.2.2")
		if err := b.Note(t.Context(), "crimson", host, blueprint.Used, time.Hour); err != nil {
			t.Fatal(err)
		}
		call("crimson", http.StatusConflict, "192.0.2.2")
		if b.entries["crimson"].Removed {
			t.Error("removed while used")
		}
		if err := b.Note(t.Context(), "crimson", host, blueprint.Here, time.Hour); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Second) // the fake clock's
			a.left("red", "192.0.2.2")
		}()
		if took := call("crimson", http.StatusConflict, "192.0.2.2", "remove Docker network crimson by themselves", "try again"); took != leavingTime {
			t.Errorf("it took %s", took)
		}
		a.left("red")
		if took := call("crimson", http.StatusOK, `"Network":"red"`); took > 0 {
			t.Errorf("nothing to wait for, and it took %s", took)
		}
		go func() {
			time.Sleep(time.Second) // the fake clock's
			a.left("")
		}()
		if took := call("", http.StatusOK, `"Docker":["blue"]`); took != time.Second {
			t.Errorf("it took %s", took)
		}
		call("bare", http.StatusOK, `"Network":"bare"`)
		o.shared = nil
		a.left("red", "192.0.2.1")
		call("red", http.StatusConflict, "192.0.2.1")
		call("crimson", http.StatusNotFound, "does not exist")
	})
}

// TestResolve: a name that was removed leads to its flannel network only as long as
// no other Docker network is there.
func TestResolve(t *testing.T) {
	entry := func(name, flannel string, removed bool) blueprint.Entry {
		return blueprint.Entry{Network: blueprint.Network{Name: name, Flannel: flannel}, Removed: removed}
	}
	for _, c := range []struct {
		name    string
		entries []blueprint.Entry
		want    string
		refused bool
	}{
		{"blue", nil, "blue", false},
		{"blue", []blueprint.Entry{entry("blue", "", false)}, "", false},
		{"blue", []blueprint.Entry{entry("blue", "", true)}, "", false},
		{"blue", []blueprint.Entry{entry("blue", "", true), entry("green", "", false)}, "", true},
		{"blue", []blueprint.Entry{entry("blue", "", true), entry("green", "other", false)}, "", false},
		{"blue", []blueprint.Entry{entry("blue", "x", true), entry("blue", "y", false)}, "y", false},
	} {
		got, err := resolve(c.name, c.entries)
		if got != c.want || (err != nil) != c.refused {
			t.Errorf("%s of %v: %q, %v", c.name, c.entries, got, err)
		}
	}
}
