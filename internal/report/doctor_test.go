package report

import (
	"testing"
	"time"
)

func TestStale(t *testing.T) {
	for _, c := range []struct {
		ttl, left time.Duration
		want      bool
	}{
		{0, 0, false}, // a reservation, or one that is not known
		{24 * time.Hour, 24 * time.Hour, false},
		{24 * time.Hour, 23 * time.Hour, false},
		{24 * time.Hour, 22 * time.Hour, true},
		{24 * time.Second, 16 * time.Second, false},
		{24 * time.Second, 13 * time.Second, true},
	} {
		if got := (ClusterLease{TTL: c.ttl, Left: c.left}).Stale(); got != c.want {
			t.Errorf("%s of %s left: %t", c.left, c.ttl, got)
		}
	}
}
