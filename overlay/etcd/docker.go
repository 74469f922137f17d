package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// The Docker networks that all hosts share have a key each below .docker/; a host
// that has one has a key below .docker-here/NAME/, and below .docker-use/NAME/ while
// containers use it there. No flannel network's name begins with a dot, and flanneld
// reads none of them.

// dockerKeys is the beginning of the entries' keys.
func (s *Store) dockerKeys() string { return path.Join(s.prefix) + "/.docker/" }

// dockerKey is the key of one entry; Docker's names may hold anything.
func (s *Store) dockerKey(name string) string { return s.dockerKeys() + url.PathEscape(name) }

// useKeys is the beginning of the keys of a Docker network's users.
func (s *Store) useKeys(name string) string {
	return path.Join(s.prefix) + "/.docker-use/" + url.PathEscape(name) + "/"
}

// hereKeys is the beginning of the keys of the hosts that have a Docker network.
func (s *Store) hereKeys(name string) string {
	return path.Join(s.prefix) + "/.docker-here/" + url.PathEscape(name) + "/"
}

// decodeEntry reads an entry from the part of its key that names it, and its value.
func decodeEntry(name string, value []byte) (blueprint.Entry, error) {
	var e blueprint.Entry
	if err := json.Unmarshal(value, &e); err != nil {
		return e, fmt.Errorf("not a shared Docker network: %w", err)
	}
	if e.Name == "" || url.PathEscape(e.Name) != name {
		return e, fmt.Errorf("it is of Docker network %q, not of %s", e.Name, name)
	}
	if e.ID == "" {
		return e, errors.New("it has no ID")
	}
	if e.Flannel != "" {
		if err := overlay.CheckName(e.Flannel); err != nil {
			return e, err
		}
	}
	return e, nil
}

// Docker returns the Docker networks that all hosts share, and those that were
// removed everywhere, by name. What cannot be read is left out.
func (s *Store) Docker(ctx context.Context) ([]blueprint.Entry, error) {
	got, err := s.docker(ctx)
	if err != nil {
		return nil, s.wrap(err, "list the shared Docker networks")
	}
	all, _ := s.entries(got)
	return all, nil
}

func (s *Store) docker(ctx context.Context) (*clientv3.GetResponse, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	return s.client.Get(ctx, s.dockerKeys(), clientv3.WithPrefix())
}

// entries are those that can be read, and why others cannot.
func (s *Store) entries(got *clientv3.GetResponse) (all []blueprint.Entry, junk []overlay.Junk) {
	for _, kv := range got.Kvs {
		e, err := decodeEntry(strings.TrimPrefix(string(kv.Key), s.dockerKeys()), kv.Value)
		if err != nil {
			junk = append(junk, overlay.Junk{Key: string(kv.Key), Reason: err.Error()})
			continue
		}
		e.Revision = kv.ModRevision
		all = append(all, e)
	}
	return all, junk
}

// Publish writes an entry if the store still holds it at e.Revision, or none
// where that is 0; it tells whether it did.
func (s *Store) Publish(ctx context.Context, e blueprint.Entry) (bool, error) {
	key := s.dockerKey(e.Name)
	value, err := json.Marshal(e)
	if err == nil {
		unchanged := clientv3.Compare(clientv3.ModRevision(key), "=", e.Revision)
		var done bool
		if done, err = s.commit(ctx, []clientv3.Cmp{unchanged}, clientv3.OpPut(key, string(value))); err == nil {
			return done, nil
		}
	}
	return false, s.wrap(err, "share Docker network %s", e.Name)
}

// Note keeps how a host stands to a Docker network. The note lasts for ttl, renewed
// by each call.
func (s *Store) Note(ctx context.Context, name string, host netip.Addr, p blueprint.Presence, ttl time.Duration) error {
	err := s.note(ctx, s.hereKeys(name)+host.String(), p != blueprint.Gone, ttl)
	if err == nil {
		err = s.note(ctx, s.useKeys(name)+host.String(), p == blueprint.Used, ttl)
	}
	if err != nil {
		return s.wrap(err, "note how Docker network %s is used", name)
	}
	return nil
}

// Leave notes that a host has an entry's Docker network no longer. With the last
// host goes the entry, unless it has changed.
func (s *Store) Leave(ctx context.Context, e blueprint.Entry, host netip.Addr) error {
	if err := s.Note(ctx, e.Name, host, blueprint.Gone, 0); err != nil {
		return err
	}
	_, err := s.commit(ctx, []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(s.dockerKey(e.Name)), "=", e.Revision),
		clientv3.Compare(clientv3.CreateRevision(s.hereKeys(e.Name)), "=", 0).WithPrefix(),
	}, clientv3.OpDelete(s.dockerKey(e.Name)))
	if err != nil {
		return s.wrap(err, "leave Docker network %s", e.Name)
	}
	return nil
}

// note makes a key that is there, or is not.
func (s *Store) note(ctx context.Context, key string, there bool, ttl time.Duration) error {
	get, cancel := s.call(ctx)
	got, err := s.client.Get(get, key)
	cancel()
	if err != nil {
		return err
	}
	for _, kv := range got.Kvs { // one at most
		id := clientv3.LeaseID(kv.Lease)
		if !there {
			if _, err := s.commit(ctx, nil, clientv3.OpDelete(key)); err != nil || id == clientv3.NoLease {
				return err
			}
			return s.revoke(ctx, id)
		}
		if id == clientv3.NoLease {
			continue
		}
		left, err := s.renew(ctx, id)
		if err == nil && time.Duration(left)*time.Second >= ttl {
			return nil
		}
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return err
		}
	}
	if !there {
		return nil
	}
	id, _, err := s.grant(ctx, ttl)
	if err != nil {
		return err
	}
	if _, err = s.commit(ctx, nil, clientv3.OpPut(key, time.Now().UTC().Format(time.RFC3339), clientv3.WithLease(id))); err != nil {
		return errors.Join(err, s.revoke(context.WithoutCancel(ctx), id))
	}
	return nil
}

// ErrUsed means that containers use a Docker network.
var ErrUsed = errors.New("in use")

// Retire marks all Docker networks on a flannel network as removed everywhere, and
// returns their names. It does so for all or none: ErrUsed while containers use one
// of them on any host.
func (s *Store) Retire(ctx context.Context, network string) ([]string, error) {
	names, err := s.retire(ctx, network)
	if err != nil {
		return nil, s.wrap(err, "remove the Docker networks of %s everywhere", keys{network: network})
	}
	return names, nil
}

func (s *Store) retire(ctx context.Context, network string) ([]string, error) {
	for {
		got, err := s.docker(ctx)
		if err != nil {
			return nil, err
		}
		var names []string
		var cmps []clientv3.Cmp
		var puts []clientv3.Op
		all, _ := s.entries(got)
		for _, e := range all {
			if e.Flannel != network || e.Removed {
				continue
			}
			e.Removed = true
			value, err := json.Marshal(e)
			if err != nil {
				return nil, err
			}
			key := s.dockerKey(e.Name)
			names = append(names, e.Name)
			cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(key), "=", e.Revision),
				clientv3.Compare(clientv3.CreateRevision(s.useKeys(e.Name)), "=", 0).WithPrefix())
			puts = append(puts, clientv3.OpPut(key, string(value)))
		}
		if len(names) == 0 {
			return nil, nil
		}
		done, err := s.commit(ctx, cmps, puts...)
		if err == nil && !done {
			err = s.users(ctx, names)
		}
		if err != nil {
			return nil, err
		}
		if done {
			return names, nil
		}
	}
}

// users is ErrUsed with where containers use which of the Docker networks, nil
// where none do.
func (s *Store) users(ctx context.Context, names []string) error {
	var all []string
	for _, name := range names {
		get, cancel := s.call(ctx)
		got, err := s.client.Get(get, s.useKeys(name), clientv3.WithPrefix(), clientv3.WithKeysOnly())
		cancel()
		if err != nil {
			return err
		}
		for _, kv := range got.Kvs {
			all = append(all, fmt.Sprintf("host %s (Docker network %s)", strings.TrimPrefix(string(kv.Key), s.useKeys(name)), name))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("%w: containers use it on %s; stop them first", ErrUsed, strings.Join(all, ", "))
}
