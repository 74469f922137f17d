//go:build lab

package e2e

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	// crowd is how many containers TestCrowd starts, atOnce how many docker
	// commands it has under way on a host.
	crowd  = 200
	atOnce = 25
)

// TestCrowd starts two hundred containers on three hosts at once: all run, and no
// two have the same address.
func TestCrowd(t *testing.T) {
	third, err := startHosts(cluster.lab, "third", engines[1:])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := third[0].PowerOff(); err != nil {
			t.Error(err)
		}
	})
	hosts := append(slices.Clone(cluster.hosts), third...)
	install(t, hosts)
	create(t, hosts)
	var wg sync.WaitGroup
	for _, h := range hosts {
		t.Cleanup(func() { removeAll(t, h) })
	}
	began := time.Now()
	for i, h := range hosts {
		starts := make(chan int, crowd)
		for n := i; n < crowd; n += len(hosts) {
			starts <- n
		}
		close(starts)
		for range atOnce {
			wg.Go(func() {
				for n := range starts {
					if err := try(t, h, "run", "-d", "--name", fmt.Sprintf("crowd%d", n), "--network", network, "busybox", "sleep", "1000"); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	t.Logf("%d containers on %d hosts in %s", crowd, len(hosts), time.Since(began).Round(time.Second))
	seen := map[string]string{}
	for _, h := range hosts {
		account(t, h)
		addrs, _, err := engineBooks(t, h)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if seen[a] != "" {
				t.Errorf("address %s is on %s and on %s", a, seen[a], h.Name())
			}
			seen[a] = h.Name()
		}
	}
	if len(seen) != crowd {
		t.Errorf("%d addresses for %d containers", len(seen), crowd)
	}
	for _, h := range hosts {
		wg.Go(func() { removeAll(t, h) })
	}
	wg.Wait()
	for _, h := range hosts {
		account(t, h)
	}
}
