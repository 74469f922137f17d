package overlay_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// TestTidings lets hosts come, move and go, and many at once.
func TestTidings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
		a.network(t)
		read := 0
		expect := func(change func(), lines ...string) {
			t.Helper()
			store.edit(change)
			synctest.Wait()
			var got []string
			for _, line := range strings.Split(a.log.String()[read:], "\n") {
				if strings.Contains(line, `msg="hosts `) {
					_, line, _ = strings.Cut(line, "msg=")
					got = append(got, line)
				}
			}
			read = len(a.log.String())
			if strings.Join(got, "\n") != strings.Join(lines, "\n") {
				t.Errorf("got  %q\nwant %q", got, lines)
			}
		}
		put := func(l overlay.Lease) func() { return func() { store.leases[l.Subnet] = l } }
		expect(put(foreign("10.5.8.0/24", "192.0.2.8", "vxlan")), `"hosts came" network="the default network" count=1 hosts="[10.5.8.0/24 at 192.0.2.8]"`)
		expect(put(foreign("10.5.8.0/24", "192.0.2.8", "vxlan")))
		expect(put(foreign("10.5.8.0/24", "192.0.2.9", "vxlan")),
			`"hosts came" network="the default network" count=1 hosts="[10.5.8.0/24 at 192.0.2.9]"`, `"hosts went" network="the default network" count=1 hosts="[10.5.8.0/24 at 192.0.2.8]"`)
		expect(func() { delete(store.leases, netip.MustParsePrefix("10.5.8.0/24")) }, `"hosts went" network="the default network" count=1 hosts="[10.5.8.0/24 at 192.0.2.9]"`)
		expect(func() {
			for i := range 11 {
				l := foreign(fmt.Sprintf("10.5.%d.0/24", 100+i), fmt.Sprintf("192.0.2.%d", 100+i), "vxlan")
				store.leases[l.Subnet] = l
			}
		}, `"hosts came" network="the default network" count=11 hosts="[`+strings.Join(wanted(8), " ")+` and 3 more]"`)
	})
}

func wanted(count int) (out []string) {
	for i := range count {
		out = append(out, fmt.Sprintf("10.5.%d.0/24 at 192.0.2.%d", 100+i, 100+i))
	}
	return out
}
