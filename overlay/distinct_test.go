package overlay_test

import (
	"encoding/json"
	"testing"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/hostgw"
	"github.com/docker-flannel/docker-flannel/overlay/udp"
	"github.com/docker-flannel/docker-flannel/overlay/vxlan"
)

// TestDistinct gives networks of one backend what they must not share, whatever
// the others say, and leaves what nobody has.
func TestDistinct(t *testing.T) {
	for _, c := range []struct {
		backend overlay.Backend
		raw     string
		others  []string
		want    string
	}{
		{vxlan.Backend{}, `{"Type":"vxlan"}`, nil, `{"Type":"vxlan"}`},
		{vxlan.Backend{}, `{"Type":"vxlan"}`, []string{`{"Type":"vxlan"}`}, `{"Type":"vxlan","VNI":2}`},
		{vxlan.Backend{}, `{"Type":"vxlan"}`, []string{`{"VNI":2}`, `{"VNI":1}`, `{"VNI":4}`}, `{"Type":"vxlan","VNI":3}`},
		{vxlan.Backend{}, `{"Type":"vxlan","vni":7}`, []string{`{"VNI":7}`}, `{"Type":"vxlan","VNI":2}`},
		{vxlan.Backend{}, `{"Type":"vxlan","VNI":7}`, []string{`{"VNI":8}`}, `{"Type":"vxlan","VNI":7}`},
		{udp.Backend{}, `{"Type":"udp"}`, []string{``}, `{"Port":8286,"Type":"udp"}`},
		{udp.Backend{}, `{"Type":"udp","Port":8472}`, nil, `{"Port":8286,"Type":"udp"}`},
		{udp.Backend{}, `{"Type":"udp","Port":9000}`, []string{``, `{"Port":8286}`}, `{"Type":"udp","Port":9000}`},
		{hostgw.Backend{}, `{"Type":"host-gw"}`, []string{`{"Type":"host-gw"}`}, `{"Type":"host-gw"}`},
	} {
		var others []json.RawMessage
		for _, o := range c.others {
			others = append(others, json.RawMessage(o))
		}
		got, err := c.backend.Distinct(json.RawMessage(c.raw), others)
		if err != nil || string(got) != c.want {
			t.Errorf("%s beside %q: %s, %v; want %s", c.raw, c.others, got, err, c.want)
		}
	}
	if _, err := (udp.Backend{}).Distinct(json.RawMessage(`{"Port":-1}`), nil); err == nil {
		t.Error("a bad port is passed on")
	}
}
