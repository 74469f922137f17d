//go:build lab

package e2e

import (
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

// steps are where the plugin dies in TestLeaks: at every call of a container's
// life.
func steps() (all []strike) {
	for _, call := range []string{"RequestAddress", "CreateEndpoint", "Join", "Leave", "DeleteEndpoint", "ReleaseAddress"} {
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
// goes on until the plugin has died at every step that was ordered.
func churn(t *testing.T, h *netlab.Host, count int) {
	b := putBooth(t, h)
	began := time.Now()
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	more := func(i int) bool {
		_, due := b.tally()
		return !t.Failed() && (i < count || i < 2*count && len(due) > 0)
	}
	for range runners {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; more(i); i = int(next.Add(1)) - 1 {
				if i < count && i%strikeEvery == 0 {
					b.order(steps()[i/strikeEvery%len(steps())])
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
