package etcd

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/logbuf"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// A watch notices that behind its endpoint is another etcd, though that one's
// revision is lower than what it saw, so that it would wait long for a change.
func TestWatchReplaced(t *testing.T) {
	first := newWorld(t, startEmbedded(t))
	second := newWorld(t, startEmbedded(t))
	for _, w := range []*world{first, second} {
		w.configure(t, stockConfig)
	}
	for range 50 {
		first.put(t, "/subnets/10.5.1.0-24", valueOf(1))
	}
	second.put(t, "/subnets/10.5.2.0-24", valueOf(2))

	p := newProxy(t, first.endpoint)
	var log logbuf.Buffer
	health := make(chan error, 100)
	s := New(dial(t, p.endpoint()), first.prefix, WithLogger(slog.New(slog.NewTextHandler(&log, nil))), WithHealth(func(err error) { health <- err }))
	seen := watch(t, s, "")
	was := seen.await(t, "the first", func(s overlay.Snapshot) bool { return leases(s) == "10.5.1.0/24 192.168.0.1\n" })
	p.cut()
	p.redirect(t, second.endpoint)
	is := seen.await(t, "the second", func(s overlay.Snapshot) bool { return leases(s) == "10.5.2.0/24 192.168.0.2\n" })
	if is.Revision >= was.Revision {
		t.Errorf("revision %d after %d: the test tests nothing", is.Revision, was.Revision)
	}
	second.put(t, "/subnets/10.5.3.0-24", valueOf(3))
	seen.await(t, "a change", func(s overlay.Snapshot) bool { return len(s.Leases) == 2 })
	if began := <-health; began != nil {
		t.Errorf("it began with %v", began)
	}
	if lost := <-health; lost == nil || !strings.Contains(lost.Error(), p.endpoint()) {
		t.Errorf("it lost etcd, and told %v", lost)
	}
	for again := <-health; again != nil; again = <-health {
		t.Log(again)
	}
	text := log.String()
	if strings.Count(text, "level=WARN") != 1 || strings.Count(text, "watching etcd again") != 1 || !strings.Contains(text, p.endpoint()) {
		t.Errorf("log:\n%s", text)
	}
}

func TestWatchBadName(t *testing.T) {
	s := New(dial(t, "http://127.0.0.1:1"), DefaultPrefix)
	if err := s.Watch(t.Context(), "subnets", nil); err == nil {
		t.Error("no error")
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := delay{next: minBackoff}
		want := minBackoff
		for range 12 {
			start := time.Now()
			if err := d.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(start); got < want/2 || got > want+want/2 {
				t.Errorf("waited %s, want about %s", got, want)
			}
			want = min(2*want, maxBackoff)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

// A claim of a host without an IPv4 address, or without a time to live, is none.
func TestClaimOfNobody(t *testing.T) {
	s := New(dial(t, "http://127.0.0.1:1"), DefaultPrefix)
	for _, c := range []overlay.Claim{
		{TTL: time.Hour},
		{TTL: time.Hour, PublicIP: netip.MustParseAddr("fd00::1")},
		{PublicIP: host(1)},
	} {
		if _, err := s.Claim(t.Context(), "", c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}
