package etcd

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
)

// WatchDocker calls emit with all shared Docker networks at the start and after
// every change, until ctx ends, and reads everything anew where the watch breaks
// off, as Watch does.
func (s *Store) WatchDocker(ctx context.Context, emit func([]blueprint.Entry)) error {
	retry := delay{next: minBackoff}
	said := map[string]string{}
	broken := false
	for {
		start := time.Now()
		err := s.followDocker(ctx, func(got *clientv3.GetResponse) {
			if broken {
				broken = false
				s.log.Info("watching the shared Docker networks again", "revision", got.Header.Revision)
			}
			all, junk := s.entries(got)
			for _, j := range junk {
				if said[j.Key] != j.Reason {
					said[j.Key] = j.Reason
					s.log.Warn("a shared Docker network is skipped; correct its key or delete it", "key", j.Key, "reason", j.Reason)
				}
			}
			emit(all)
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(start) > maxBackoff {
			retry.next = minBackoff
		}
		if !broken {
			broken = true
			s.log.Warn("lost the watch on the shared Docker networks, reading them again", "error", s.wrap(err, "watch %s", s.dockerKeys()))
		}
		if err := retry.wait(ctx); err != nil {
			return err
		}
	}
}

// followDocker reads all entries at the start and after every change until
// something breaks: there are few, and they seldom change.
func (s *Store) followDocker(ctx context.Context, emit func(*clientv3.GetResponse)) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "docker-flannel-watch", rand.Text()) // a stream of its own, as in stream
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	got, err := s.docker(ctx)
	if err != nil {
		cancel(nil)
		return err
	}
	var connection sync.WaitGroup
	defer connection.Wait()
	defer cancel(nil)
	connection.Go(func() { cancel(s.disconnected(ctx)) })
	emit(got)
	first := got.Header
	changes := s.client.Watch(ctx, s.dockerKeys(), clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithRev(first.Revision+1))
	for {
		select {
		case change, open := <-changes:
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case change.Err() != nil:
				return change.Err()
			case !open:
				return errWatchEnded
			case change.Header.ClusterId != first.ClusterId || change.Created && change.Header.Revision < first.Revision:
				return errOtherEtcd
			case change.Created:
				continue
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if got, err = s.docker(ctx); err != nil {
			return err
		}
		if got.Header.ClusterId != first.ClusterId {
			return errOtherEtcd
		}
		emit(got)
	}
}
