package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	random "math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// Watch calls emit with the whole truth at the start and after every change. A
// config that is missing or cannot be read is reported as junk, while the last
// good one stays in use. When the watch breaks off, the history is compacted or
// the connection is lost, it reads everything again: behind a new connection
// may be another etcd, restored from a backup, even at a lower revision.
//
// Leases that share a PublicIP are not junk: each is valid by itself.
func (s *Store) Watch(ctx context.Context, network string, emit func(overlay.Snapshot)) error {
	k, err := newKeys(s.prefix, network)
	if err != nil {
		return err
	}
	log := s.log.With("network", network)
	v := newView(k)
	retry := delay{next: minBackoff}
	broken := false
	for {
		start := time.Now()
		err := s.follow(ctx, v, func(snap overlay.Snapshot) {
			if broken {
				broken = false
				log.Info("watching etcd again", "revision", snap.Revision)
			}
			s.health(nil)
			emit(snap)
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(start) > maxBackoff {
			retry.next = minBackoff
		}
		err = s.wrap(err, "watch %s", k)
		s.health(err)
		if !broken {
			broken = true
			log.Warn("lost the watch on etcd, reading everything again", "error", err)
		}
		if err := retry.wait(ctx); err != nil {
			return err
		}
	}
}

// follow reads everything and then takes in changes until something breaks.
func (s *Store) follow(ctx context.Context, v *view, emit func(overlay.Snapshot)) error {
	st, err := s.read(ctx, v.keys)
	if err != nil {
		return err
	}
	v.reset(st)
	emit(v.snapshot())
	return s.stream(ctx, v, emit)
}

var (
	errDisconnected = errors.New("connection lost")
	errWatchEnded   = errors.New("watch ended")
	errOtherEtcd    = errors.New("another etcd answers")
)

// stream takes in the changes after the view's revision. The config and the
// leases are watched each by itself, since other networks' keys lie between.
// The connection may be lost and made anew between the reading and the watch:
// the watch must begin on the cluster that was read.
//
// The client carries all watches of one metadata on one stream, with the token
// that the stream began with: a watch that begins when that has expired would be
// refused. So every call has a stream of its own.
func (s *Store) stream(ctx context.Context, v *view, emit func(overlay.Snapshot)) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "docker-flannel-watch", rand.Text())
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	var connection sync.WaitGroup
	defer connection.Wait()
	defer cancel(nil)
	connection.Go(func() { cancel(s.disconnected(ctx)) })

	next := clientv3.WithRev(v.revision + 1)
	config := s.client.Watch(ctx, v.keys.config(), next)
	leases := s.client.Watch(ctx, v.keys.subnets(), clientv3.WithPrefix(), clientv3.WithCreatedNotify(), next)
	for {
		var resp clientv3.WatchResponse
		var open bool
		select {
		case resp, open = <-config:
		case resp, open = <-leases:
		case <-ctx.Done():
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case resp.Err() != nil:
			return resp.Err()
		case !open:
			return errWatchEnded
		case resp.Header.ClusterId != v.cluster || resp.Created && resp.Header.Revision < v.revision:
			return errOtherEtcd
		}
		if v.apply(resp) {
			emit(v.snapshot())
		}
	}
}

// disconnected waits until the client has no connection left, which its watches
// do not tell: they wait for the next one in silence.
func (s *Store) disconnected(ctx context.Context) error {
	conn := s.client.ActiveConnection()
	if conn.GetState() == connectivity.Ready && !conn.WaitForStateChange(ctx, connectivity.Ready) {
		return ctx.Err()
	}
	return errDisconnected
}

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// delay spreads the hosts of a cluster that all lost etcd at once.
type delay struct{ next time.Duration }

// wait waits half to one and a half times next, which doubles up to maxBackoff.
func (b *delay) wait(ctx context.Context) error {
	d := b.next
	b.next = min(2*d, maxBackoff)
	return pause(ctx, d/2+random.N(d))
}
