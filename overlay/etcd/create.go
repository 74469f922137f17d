package etcd

import (
	"context"
	"math/rand/v2"
	"path"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// configText reads the config key, or creates it. Networks are created one at a
// time: each with a name bumps the census, and none is created on an older one,
// or not knowing the default network.
func (s *Store) configText(ctx context.Context, k keys, initial overlay.Initial) ([]byte, error) {
	for attempt := 0; ; attempt++ {
		text, err := s.readConfig(ctx, k)
		if err == nil && text == nil && initial == nil {
			err = overlay.ErrNoConfig
		}
		if err != nil {
			return nil, s.wrap(err, "read the config of %s", k)
		}
		if text != nil {
			return text, nil
		}
		text, err = s.createConfig(ctx, k, initial)
		if err != nil || text != nil {
			return text, err
		}
		if err := pause(ctx, rand.N(5*time.Millisecond<<min(attempt, 5))); err != nil {
			return nil, s.wrap(err, "create the config of %s", k)
		}
	}
}

// readConfig returns nil where there is no config.
func (s *Store) readConfig(ctx context.Context, k keys) ([]byte, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	got, err := s.client.Get(ctx, k.config())
	if err != nil || len(got.Kvs) == 0 {
		return nil, err
	}
	return got.Kvs[0].Value, nil
}

// census is a key that changes with every network with a name that is created. No
// network's name begins with a dot.
func (s *Store) census() string { return path.Join(s.prefix, ".networks") }

// createConfig returns nil where another host was faster. What initial refuses is
// no matter of etcd's.
func (s *Store) createConfig(ctx context.Context, k keys, initial overlay.Initial) ([]byte, error) {
	others, known, err := s.networks(ctx)
	if err != nil {
		return nil, s.wrap(err, "list the networks")
	}
	delete(others, k.network) // was there, and is gone or unreadable
	text, err := initial(others)
	if err != nil {
		return nil, err
	}
	if _, err := overlay.ParseConfig(text); err != nil {
		return nil, s.wrap(err, "the config of %s to create", k)
	}
	ctx, cancel := s.call(ctx)
	defer cancel()
	puts := []clientv3.Op{clientv3.OpPut(k.config(), string(text))}
	if k.network != "" {
		puts = append(puts, clientv3.OpPut(s.census(), k.network))
	}
	made, err := s.client.Txn(ctx).If(
		clientv3.Compare(clientv3.CreateRevision(k.config()), "=", 0),
		clientv3.Compare(clientv3.ModRevision(s.census()), "=", known[s.census()]),
		clientv3.Compare(clientv3.ModRevision(s.first()), "=", known[s.first()]),
	).Then(puts...).Commit()
	if err != nil {
		return nil, s.wrap(err, "create the config of %s", k)
	}
	if !made.Succeeded {
		return nil, nil
	}
	return text, nil
}

// first is the default network's config.
func (s *Store) first() string { return keys{base: path.Join(s.prefix)}.config() }

// networks returns the configs of all networks, and the revisions of what must
// not change before one more is created. What cannot be read is nobody's network.
func (s *Store) networks(ctx context.Context) (map[string]overlay.Config, map[string]int64, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	base := path.Join(s.prefix) + "/"
	got, err := s.client.Get(ctx, base, clientv3.WithPrefix())
	if err != nil {
		return nil, nil, err
	}
	all, known := map[string]overlay.Config{}, map[string]int64{}
	for _, kv := range got.Kvs {
		key := string(kv.Key)
		if key == s.census() || key == s.first() {
			known[key] = kv.ModRevision
		}
		name, isConfig := strings.CutSuffix("/"+strings.TrimPrefix(key, base), "/config")
		name = strings.TrimPrefix(name, "/")
		if !isConfig || name != "" && overlay.CheckName(name) != nil {
			continue
		}
		if cfg, err := overlay.ParseConfig(kv.Value); err == nil {
			all[name] = cfg
		}
	}
	return all, known, nil
}
