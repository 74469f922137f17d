//go:build lab

package kernel

import (
	"strings"
	"testing"
)

func TestTraffic(t *testing.T) {
	h := newHost(t)
	before, err := h.k.Traffic("eth0")
	if err != nil {
		t.Fatal(err)
	}
	h.sh("ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev eth0; ping -c 3 -i 0.2 -W 0.1 -s 100 10.0.0.2 || true")
	after, err := h.k.Traffic("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if sent, bytes := after.SentPackets-before.SentPackets, after.SentBytes-before.SentBytes; sent < 3 || bytes < 3*142 {
		t.Errorf("%d packets, %d bytes: %+v, before %+v", sent, bytes, after, before)
	}
	if _, err := h.k.Traffic("flannel.9"); err == nil || !strings.Contains(err.Error(), "flannel.9") {
		t.Errorf("of a device that is not there: %v", err)
	}
}
