package overlay_test

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/hostgw"
	"github.com/docker-flannel/docker-flannel/overlay/vxlan"
)

const (
	subnetsText = `"Config":{"EnableIPv4":true,"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.255.0","SubnetLen":24,"Backend":{"Type":"vxlan","Raw":{"Type":"vxlan"}}},"Subnet":"10.5.7.0/24"`
	dockerText  = `"Docker":{"ID":"` + dockerNet + `","Subnet":"10.5.7.0/24"}`
	portText    = `{"Network":"` + dockerNet + `","Endpoint":"` + endpoint + `","Addr":"10.5.7.2","MAC":"02:42:0a:05:07:02"}`
	recordText  = `[{` + subnetsText + `,"MTU":1450,"Leased":true,"Held":true,` + dockerText + `,"Ports":[` + portText + `]}]`
	leasesText  = `{"":[{"Subnet":"10.5.8.0/24","PublicIP":"192.0.2.8","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:08"}}]}`
)

// loaded is a host on state files with these texts.
func loaded(t testing.TB, networks, leases string) (*overlay.Overlay, *board, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"networks.json": networks, "leases.json": leases} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := newBoard("192.0.2.1")
	o, err := overlay.New(overlay.Options{
		Dir: dir, Store: newMemory(), Kernel: b, TTL: time.Hour, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Backends: map[string]overlay.Backend{vxlan.Type: vxlan.Backend{}, hostgw.Type: hostgw.Backend{}},
	})
	return o, b, err
}

func TestLoadRefuses(t *testing.T) {
	if _, _, err := loaded(t, recordText, leasesText); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, now, says string }{
		"no text":              {recordText, ``, "cannot be read"},
		"another shape":        {recordText, `{}`, "cannot be read"},
		"no config":            {`"Network":"10.5.0.0/16",`, ``, "not a network's"},
		"a twisted config":     {`"SubnetMax":"10.5.255.0"`, `"SubnetMax":"10.4.255.0"`, "not a network's"},
		"no subnet":            {`"Subnet":"10.5.7.0/24","MTU"`, `"MTU"`, "not an IPv4 subnet"},
		"a foreign subnet":     {`"Subnet":"10.5.7.0/24","MTU"`, `"Subnet":"10.9.7.0/24","MTU"`, "10.9.7.0/24"},
		"another's subnet":     {`"Subnet":"10.5.7.0/24"}`, `"Subnet":"10.5.9.0/24"}`, "10.5.9.0/24"},
		"no Docker network":    {dockerText + `,`, ``, "1 endpoints"},
		"a short id":           {`"Endpoint":"` + endpoint, `"Endpoint":"x`, `"x"`},
		"an address elsewhere": {`10.5.7.2`, `10.5.8.2`, "10.5.8.2"},
		"a port twice":         {portText, portText + `,` + portText, "listed twice"},
		"a network twice":      {`[{`, `[{},{`, "the default network: listed twice"},
	} {
		_, _, err := loaded(t, strings.Replace(recordText, c.old, c.now, 1), leasesText)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		wantText(t, name, err.Error(), c.says, "networks.json", "move it away")
	}
}

// FuzzLoad wants that whatever stands in the state files is refused, or makes a
// plan.
func FuzzLoad(f *testing.F) {
	f.Add(recordText, leasesText)
	f.Add(`[]`, `{}`)
	f.Add(`[{"Name":"blue"}]`, `{"blue":[{}]}`)
	f.Add(strings.ReplaceAll(recordText, "vxlan", "host-gw"), `{"":[{"Subnet":"10.5.8.0/24","PublicIP":"fd00::8","BackendType":"host-gw"}]}`)
	f.Add(strings.Replace(recordText, `"Subnet":"10.5.7.0/24",`, ``, 1), `null`)
	f.Fuzz(func(t *testing.T, networks, leases string) {
		synctest.Test(t, func(t *testing.T) {
			o, b, err := loaded(t, networks, leases)
			if err != nil {
				return
			}
			run(t, o)
			synctest.Wait()
			_ = b.text()
		})
	})
}
