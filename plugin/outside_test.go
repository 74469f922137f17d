package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

func lookup(settings map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := settings[name]; return v, ok }
}

func TestOutsideFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := NewOutside(Outer{
		Lookup: lookup(map[string]string{"ETCD_ENDPOINTS": "http://192.0.2.9:2379", "ETCD_USERNAME": "u", "ETCD_PASSWORD_FILE": "/certs/password"}), Certs: dir,
	})
	if err != nil || o.dial.PasswordFile != filepath.Join(dir, "password") {
		t.Fatalf("%+v, %v", o, err)
	}
	if _, _, err := o.Host(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without state files: %v", err)
	}
	if _, err := NewOutside(Outer{Lookup: lookup(map[string]string{"MTU": "x"})}); err == nil || !strings.Contains(err.Error(), "MTU") {
		t.Errorf("wrong setting: %v", err)
	}
	if o, err := NewOutside(Outer{Lookup: lookup(map[string]string{"ETCD_LISTEN": "http://192.0.2.1:2379"})}); err != nil || o.dial.Endpoints[0] != "http://192.0.2.1:2379" {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestOutsideHost reads the state files of a plugin that is down.
func TestOutsideHost(t *testing.T) {
	cfg, err := overlay.ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":1677721}}`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	record := `[{"Name":"","Config":` + string(text) + `,"Subnet":"10.5.7.0/24",
		"VTEP":"02:00:00:00:00:07","Underlay":{"Name":"outside-test0","MTU":1500,"Addr":"192.0.2.1","PublicIP":"192.0.2.1","Net":"192.0.2.0/24"},
		"MTU":1450,"Leased":true,"Docker":{"ID":"0123456789abcdef","Subnet":"10.5.7.0/24"}}]`
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "networks.json"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := NewOutside(Outer{Lookup: lookup(nil), State: dir})
	if err != nil {
		t.Fatal(err)
	}
	host, found, err := o.Host(t.Context())
	if denied := !netAdmin(t); denied != errors.Is(err, fs.ErrPermission) || !denied && err != nil {
		t.Fatal(err) // nftables tell only those who may change them
	}
	if len(host.Networks) != 1 || host.Networks[0].Subnet != netip.MustParsePrefix("10.5.7.0/24") || host.Networks[0].Port != 8472 {
		t.Fatalf("%+v", host)
	}
	if err != nil {
		return
	}
	missing := ""
	for _, d := range found {
		missing += d.Change + "\n"
	}
	if !strings.Contains(missing, "add link flannel.1677721 ") || !strings.Contains(missing, "add link fl-0123456789ab ") {
		t.Errorf("missing:\n%s", missing)
	}
}

// netAdmin tells whether the process has CAP_NET_ADMIN.
func netAdmin(t *testing.T) bool {
	t.Helper()
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

// TestAudit: what is changed at the moment is no difference.
func TestAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stays, passes := kernel.Difference{Object: "link a", Change: "add link a"}, kernel.Difference{Object: "veth b", Change: "add veth b"}
		looks := [][]kernel.Difference{{stays, passes}, {stays}}
		want := func() kernel.State { return kernel.State{} }
		got, err := audit(t.Context(), want, func(kernel.State) ([]kernel.Difference, error) {
			now := looks[0]
			looks = looks[1:]
			return now, nil
		})
		if err != nil || len(got) != 1 || got[0] != (report.Difference{Object: "link a", Change: "add link a"}) || len(looks) > 0 {
			t.Errorf("%+v, %v", got, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := audit(ctx, want, func(kernel.State) ([]kernel.Difference, error) { return []kernel.Difference{stays}, nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if got, err := audit(t.Context(), want, func(kernel.State) ([]kernel.Difference, error) { return nil, nil }); err != nil || got == nil || len(got) > 0 {
			t.Errorf("%v, %v", got, err)
		}
	})
}
