package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/network"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/etcd"
)

// board is what hosts share, as the store keeps it.
type board struct {
	mu       sync.Mutex
	entries  map[string]blueprint.Entry
	users    map[string]map[netip.Addr]bool
	owners   map[string]map[netip.Addr]bool
	revision int64
	down     error
	calls    int // of Note
}

func (b *board) Docker(context.Context) ([]blueprint.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []blueprint.Entry
	for _, name := range slices.Sorted(maps.Keys(b.entries)) {
		all = append(all, b.entries[name])
	}
	return all, b.down
}

func (b *board) WatchDocker(ctx context.Context, emit func([]blueprint.Entry)) error {
	if all, err := b.Docker(ctx); err == nil {
		emit(all)
	}
	<-ctx.Done()
	return ctx.Err()
}

func (b *board) Publish(_ context.Context, e blueprint.Entry) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil || b.entries[e.Name].Revision != e.Revision {
		return false, b.down
	}
	b.revision++
	e.Revision = b.revision
	b.entries[e.Name] = e
	return true, nil
}

func (b *board) Note(_ context.Context, name string, host netip.Addr, p blueprint.Presence, _ time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	for _, k := range []struct {
		all   map[string]map[netip.Addr]bool
		there bool
	}{{b.users, p == blueprint.Used}, {b.owners, p != blueprint.Gone}} {
		if k.all[name] == nil {
			k.all[name] = map[netip.Addr]bool{}
		}
		if delete(k.all[name], host); k.there {
			k.all[name][host] = true
		}
	}
	return b.down
}

func (b *board) Leave(ctx context.Context, e blueprint.Entry, host netip.Addr) error {
	if err := b.Note(ctx, e.Name, host, blueprint.Gone, 0); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.owners[e.Name]) == 0 && b.entries[e.Name].Revision == e.Revision {
		delete(b.entries, e.Name)
	}
	return nil
}

func (b *board) Retire(_ context.Context, flannel string) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for name, e := range b.entries {
		if e.Flannel == flannel && !e.Removed {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if len(b.users[name]) > 0 {
			return nil, fmt.Errorf("%w on %v", etcd.ErrUsed, b.users[name])
		}
	}
	for _, name := range names {
		b.revision++
		e := b.entries[name]
		e.Removed, e.Revision = true, b.revision
		b.entries[name] = e
	}
	return names, nil
}

// dock is an engine with networks.
type dock struct {
	mu       sync.Mutex
	networks []found
	next     int
	faulty   error // of Make
	stranger error
}

func (d *dock) Recognise(context.Context) error { return d.stranger }

func (d *dock) List(context.Context, func() report.Host) ([]found, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.networks), nil
}

func (d *dock) Make(_ context.Context, n blueprint.Network) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.faulty != nil {
		return "", d.faulty
	}
	d.next++
	f := found{Network: n, ID: fmt.Sprintf("id%d", d.next), Driver: "flannel", Ours: true}
	d.networks = append(d.networks, f)
	return f.ID, nil
}

func (d *dock) Remove(_ context.Context, id string) error {
	if i := slices.IndexFunc(d.networks, func(f found) bool { return f.ID == id }); i >= 0 {
		if d.networks[i].Containers > 0 {
			return errors.New("network has active endpoints")
		}
		d.networks = slices.Delete(d.networks, i, i+1)
	}
	return nil
}

func (d *dock) Changes(ctx context.Context, changed func()) error {
	changed()
	<-ctx.Done()
	return ctx.Err()
}

// drop removes a network as a person does.
func (d *dock) drop(name string) {
	d.networks = slices.DeleteFunc(d.networks, func(f found) bool { return f.Name == name })
}

// site is a host that syncs.
type site struct {
	*syncer
	dock *dock
	log  bytes.Buffer
	addr netip.Addr
	dir  string
}

func newSite(t *testing.T, b *board, addr string) *site {
	t.Helper()
	s := &site{dock: &dock{}, addr: netip.MustParseAddr(addr), dir: t.TempDir()}
	s.restart(t, b)
	return s
}

// restart ends the plugin and starts it.
func (s *site) restart(t *testing.T, b *board) {
	t.Helper()
	var err error
	if s.syncer, err = newSyncer(filepath.Join(s.dir, "synced.json"), slog.New(slog.NewTextHandler(&s.log, nil))); err != nil {
		t.Fatal(err)
	}
	s.engine, s.shared, s.ttl = s.dock, b, time.Hour
	s.host = func() report.Host { return report.Host{PublicIP: s.addr} }
}

// make creates a network as a person does.
func (s *site) make(t *testing.T, n blueprint.Network) {
	t.Helper()
	if _, err := s.dock.Make(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

func (s *site) names() string {
	var all []string
	for _, f := range s.dock.networks {
		all = append(all, f.Name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// settled lets hosts look until nothing changes any more.
func settled(t *testing.T, b *board, sites ...*site) {
	t.Helper()
	for range 3 {
		for _, s := range sites {
			all, err := b.Docker(t.Context())
			if err == nil {
				s.learn(all)
			}
			s.round(t.Context())
		}
	}
}

func newBoard() *board {
	return &board{entries: map[string]blueprint.Entry{}, users: map[string]map[netip.Addr]bool{}, owners: map[string]map[netip.Addr]bool{}}
}

func expect(t *testing.T, what string, s *site, want string) {
	t.Helper()
	if got := s.names(); got != want {
		t.Errorf("%s: host %s has %q, want %q; log:\n%s", what, s.addr, got, want, &s.log)
	}
}

func TestSync(t *testing.T) {
	b := newBoard()
	one, two := newSite(t, b, "192.0.2.1"), newSite(t, b, "192.0.2.2")
	blue := blueprint.Network{Name: "blue", Options: map[string]string{"mtu": "1400"}, Labels: map[string]string{"a": "b"}, Attachable: true}
	one.make(t, blue)
	two.make(t, blueprint.Network{Name: "red"})
	settled(t, b, one, two)
	expect(t, "created", one, "blue red")
	expect(t, "created", two, "blue red")
	if got := two.dock.networks[1].Network; got.Options["mtu"] != "1400" || got.Labels["a"] != "b" || !got.Attachable {
		t.Errorf("made as %+v", got)
	}
	two.dock.drop("blue")
	settled(t, b, one, two)
	two.restart(t, b)
	settled(t, b, one, two)
	expect(t, "removed on two", one, "blue red")
	expect(t, "removed on two", two, "red")
	if n := strings.Count(two.log.String(), "stays on the others"); n != 1 {
		t.Errorf("said %d times in\n%s", n, &two.log)
	}
	b.entries = map[string]blueprint.Entry{} // wiped
	settled(t, b, one, two)
	expect(t, "wiped", one, "blue red")
	expect(t, "wiped", two, "red")
	if len(b.entries) != 2 {
		t.Errorf("after the wipe the store holds %v", b.entries)
	}
	two.make(t, blue)
	settled(t, b, one, two)
	two.dock.networks[len(two.dock.networks)-1].Containers = 1
	settled(t, b, one, two)
	if _, err := b.Retire(t.Context(), ""); !errors.Is(err, etcd.ErrUsed) || !b.users["blue"][two.addr] || len(b.users["red"]) > 0 {
		t.Errorf("retired while used: %v; %v", err, b.users)
	}
	two.dock.networks[len(two.dock.networks)-1].Containers = 0
	settled(t, b, one, two)
	three := newSite(t, b, "192.0.2.3")
	three.make(t, blue)
	settled(t, b, three)
	expect(t, "alone", three, "blue red")
	if _, err := b.Retire(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	three.dock.networks[0].Containers = 1 // in the same moment
	settled(t, b, one, two, three)
	expect(t, "removed everywhere", one, "")
	expect(t, "removed everywhere", two, "")
	expect(t, "removed everywhere while used", three, "blue")
	if n := strings.Count(three.log.String(), "active endpoints"); n != 1 {
		t.Errorf("said %d times in\n%s", n, &three.log)
	}
	three.dock.networks[0].Containers = 0
	one.make(t, blue)
	settled(t, b, three, one, two)
	expect(t, "made anew", three, "blue")
	expect(t, "made anew", two, "blue")
	expect(t, "made anew", one, "blue")
	for _, s := range []*site{one, two, three} {
		s.dock.drop("blue")
		settled(t, b, one, two, three)
	}
	if len(b.entries) > 1 { // red's is marked
		t.Errorf("all have removed it, and the store holds %v", b.entries)
	}
	two.make(t, blueprint.Network{Name: "blue", Internal: true})
	settled(t, b, one, two, three)
	expect(t, "another one", one, "blue")
	if !one.dock.networks[0].Internal {
		t.Error("it is the old one")
	}
}

func TestSyncTrouble(t *testing.T) {
	b := newBoard()
	one, two := newSite(t, b, "192.0.2.1"), newSite(t, b, "192.0.2.2")
	two.round(t.Context()) // before the store has answered
	one.make(t, blueprint.Network{Name: "blue"})
	settled(t, b, one)
	two.dock.stranger = errors.New("runs other plugins")
	settled(t, b, two)
	if two.log.Len() > 0 {
		t.Errorf("an engine that has just been asked for the first time: %s", &two.log)
	}
	two.strange = two.strange.Add(-lookEvery)
	settled(t, b, two)
	expect(t, "another engine", two, "")
	two.dock.stranger, two.dock.faulty = nil, errors.New("no subnet is free")
	settled(t, b, two)
	settled(t, b, two)
	expect(t, "not made", two, "")
	for _, says := range []string{"runs other plugins", "no subnet is free"} {
		if n := strings.Count(two.log.String(), says); n != 1 {
			t.Errorf("%q is said %d times in\n%s", says, n, &two.log)
		}
	}
	two.dock.faulty = nil
	inTheWay := filepath.Join(two.dir, "synced.json.tmp")
	if err := os.MkdirAll(filepath.Join(inTheWay, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	one.make(t, blueprint.Network{Name: "red"})
	settled(t, b, one, two)
	expect(t, "the state file cannot be written", two, "blue")
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	settled(t, b, two)
	expect(t, "it can again", two, "blue red")
	if err := os.WriteFile(filepath.Join(two.dir, "synced.json"), []byte(`{"version":9}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newSyncer(filepath.Join(two.dir, "synced.json"), quietLog()); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("another version: %v", err)
	}
}

// TestSyncNotes counts what the store is asked about the use of networks.
func TestSyncNotes(t *testing.T) {
	b := newBoard()
	one := newSite(t, b, "192.0.2.1")
	one.make(t, blueprint.Network{Name: "blue"})
	settled(t, b, one)
	one.dock.networks[0].Containers = 2
	one.round(t.Context())
	before := b.calls
	one.dock.networks[0].Containers = 1
	one.round(t.Context())
	if b.calls != before {
		t.Error("the same is noted again")
	}
	one.noted["blue"] = time.Now().Add(-one.ttl / 2)
	one.round(t.Context())
	if b.calls != before+1 {
		t.Error("the note is not renewed")
	}
	clear(b.users)
	settled(t, b, one)
	if !b.users["blue"][one.addr] {
		t.Error("a lost note is not written again")
	}
	old := one.addr
	one.addr = netip.MustParseAddr("192.0.2.9")
	one.round(t.Context())
	if got := b.users["blue"]; got[old] || !got[one.addr] {
		t.Errorf("the host's address has changed, and the notes are of %v", got)
	}
}

// TestSyncRuns wakes by itself, and ends.
func TestSyncRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard()
		one := newSite(t, b, "192.0.2.1")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		one.make(t, blueprint.Network{Name: "blue"})
		go func() { ended <- one.run(ctx) }()
		synctest.Wait()
		if all, err := b.Docker(ctx); err != nil || len(all) != 1 {
			t.Errorf("at the start: %v, %v", all, err)
		}
		one.make(t, blueprint.Network{Name: "red"}) // without an event
		time.Sleep(lookEvery)                       // the fake clock's
		synctest.Wait()
		if all, err := b.Docker(ctx); err != nil || len(all) != 2 {
			t.Errorf("after a look: %v, %v", all, err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestDescribe(t *testing.T) {
	n := network.Inspect{
		Name: "blue", Internal: true, Attachable: true, EnableIPv6: true,
		IPAM: network.IPAM{Options: map[string]string{"network": "red"}, Config: []network.IPAMConfig{
			{Subnet: "10.6.0.0/16"}, {Subnet: "10.6.7.0/24", Gateway: "10.6.7.1"}, {Subnet: "junk"}, {Subnet: "fd00:6::/48"}, {Subnet: "fd00:6:0:7::/64"},
		}},
		Options: map[string]string{"mtu": "1400"}, Labels: map[string]string{"a": "b"},
	}
	got := describe(n, report.Network{Name: "red", CIDR: netip.MustParsePrefix("10.6.0.0/16"), IPv6CIDR: netip.MustParsePrefix("fd00:6::/48"), Subnet: netip.MustParsePrefix("10.6.7.0/24")})
	if fmt.Sprint(got) != "{blue red [10.6.0.0/16 fd00:6::/48] map[network:red] map[mtu:1400] map[a:b] true true true}" {
		t.Errorf("%v", got)
	}
}
