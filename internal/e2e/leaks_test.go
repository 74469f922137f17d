//go:build lab

package e2e

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

const (
	// startsEnv is how many containers TestLeaks starts in all.
	startsEnv     = "E2E_STARTS"
	defaultStarts = 120
	// strikeEvery is how many containers start between two deaths of the
	// plugin, runners how many at a time on a host.
	strikeEvery = 5
	runners     = 3
)

// containerCalls are those of a container's life.
var containerCalls = []string{"RequestAddress", "CreateEndpoint", "Join", "Leave", "DeleteEndpoint", "ReleaseAddress"}

// steps are before and after each of the calls.
func steps(calls ...string) (all []strike) {
	for _, call := range calls {
		all = append(all, strike{call, false}, strike{call, true})
	}
	return all
}

// TestLeaks starts and stops containers while the plugin dies at every step of
// the engine's calls. Containers may fail to start then, but nothing of them is
// left.
func TestLeaks(t *testing.T) {
	count := defaultStarts
	if text := os.Getenv(startsEnv); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", startsEnv, err)
		}
	}
	expectErrors(t, cluster.hosts, etcdAway, sweeps)
	s := setScene(t)
	t.Run("kills", func(t *testing.T) {
		for _, h := range s.hosts {
			t.Run(h.Name(), func(t *testing.T) {
				t.Parallel()
				churn(t, h, count/len(s.hosts))
			})
		}
	})
	began := time.Now()
	for _, h := range s.hosts {
		account(t, h)
	}
	t.Logf("the books agree after %s", time.Since(began).Round(time.Second))
	s.sound(t)
}

// churn starts and stops containers on a host, the plugin dying in between. It
// goes on until the plugin has died at every step that was ordered, or five minutes more.
func churn(t *testing.T, h *netlab.Host, count int) {
	b := putBooth(t, h)
	began := time.Now()
	end := sync.OnceValue(func() time.Time { return time.Now().Add(5 * time.Minute) }) // from the first call on
	all := steps(containerCalls...)
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	more := func(i int) bool {
		_, due := b.tally()
		return !t.Failed() && (i < count || len(due) > 0 && time.Now().Before(end()))
	}
	for range runners {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; more(i); i = int(next.Add(1)) - 1 {
				if i < count && i%strikeEvery == 0 {
					b.order(all[i/strikeEvery%len(all)])
				}
				if err := try(t, h, "run", "--rm", "--network", network, "busybox", "true"); err != nil {
					failed.Add(1)
					t.Log(err)
				}
			}
		})
	}
	wg.Wait()
	struck, due := b.tally()
	t.Logf("%d starts in %s, of which %d failed; the plugin was killed %d times", next.Load()-runners, time.Since(began).Round(time.Second), failed.Load(), struck)
	if len(due) > 0 {
		t.Errorf("the plugin was not killed %v", due)
	}
	// A strike breaks the calls of all that are being started.
	if int(failed.Load()) > struck*runners {
		t.Errorf("%d starts failed, for %d strikes", failed.Load(), struck)
	}
	wait(t, "the end of the containers on "+h.Name(), func() error {
		left, err := h.Docker(t.Context(), "ps", "-a", "--format", "{{.Names}} {{.Status}}")
		if err == nil && strings.Contains(left, "\n") {
			err = fmt.Errorf("there are\n%s", left)
		}
		return err
	})
}

// TestNetworkLeaks makes and removes networks while the plugin dies at every step
// of that. The next one can be made within a minute, and nothing is left.
func TestNetworkLeaks(t *testing.T) {
	etcd, err := cluster.lab.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{hosts: cluster.hosts, etcd: etcd}
	t.Cleanup(func() { s.ctl(t, "del", "--prefix", prefix) })
	expectErrors(t, s.hosts, etcdAway, sweeps)
	t.Run("kills", func(t *testing.T) {
		for _, h := range s.hosts {
			t.Run(h.Name(), func(t *testing.T) {
				t.Parallel()
				installWith(t, h, "ETCD_ENDPOINTS="+etcd.Endpoint)
				t.Cleanup(func() { forgetNetwork(h) })
				b := putBooth(t, h)
				for _, step := range steps("RequestPool", "CreateNetwork", "ReleaseAddress", "ReleasePool", "DeleteNetwork") {
					renewNetwork(t, b, step)
				}
				wait(t, "the end of the lease", func() error {
					if left := s.lease(t, h); left != "" {
						return fmt.Errorf("there is %s", left)
					}
					return nil
				})
			})
		}
	})
}

// renewNetwork makes a network and removes it, during which the plugin dies, and
// then does so again.
func renewNetwork(t *testing.T, b *booth, step strike) {
	t.Helper()
	h := b.h
	create := []string{"network", "create", "-d", "flannel", "--ipam-driver", "flannel", network}
	began := time.Now()
	b.order(step)
	wait(t, "the plugin's death "+step.String(), func() error {
		_, made := h.Docker(t.Context(), create...)
		_, removed := h.Docker(t.Context(), "network", "rm", network)
		if _, due := b.tally(); len(due) > 0 {
			return errors.Join(errors.New("it lives"), made, removed)
		}
		return nil
	})
	wait(t, "a network after the plugin's death "+step.String(), func() error {
		_, err := h.Docker(t.Context(), create...)
		return err
	})
	docker(t, h, "run", "--rm", "--network", network, "busybox", "true")
	docker(t, h, "network", "rm", network)
	t.Logf("%s: %s", step, time.Since(began).Round(time.Millisecond))
}
