// Package etcd keeps the cluster's shared truth in etcd, in the layout that
// flanneld uses, so that both can share one network: the config of a network
// under <prefix>/config and one key a lease under <prefix>/subnets/. A network
// other than the default one lives under <prefix>/<name>/.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// DefaultPrefix is flannel's own: what flanneld uses without -etcd-prefix.
const DefaultPrefix = "/coreos.com/network"

// DefaultCallTimeout bounds one call to etcd where nothing else is said.
const DefaultCallTimeout = 5 * time.Second

// Store is an overlay.Store on an etcd cluster. It holds no state of its own
// and may be used from several goroutines; the client stays its caller's.
type Store struct {
	client      *clientv3.Client
	prefix      string
	callTimeout time.Duration
	log         *slog.Logger
	health      func(error)
}

var _ overlay.Store = (*Store)(nil)

// Option changes a Store as it is made.
type Option func(*Store)

// WithCallTimeout bounds every single call to etcd. Without it the client's own
// bound holds (Options.CallTimeout), or DefaultCallTimeout.
func WithCallTimeout(d time.Duration) Option {
	return func(s *Store) { s.callTimeout = d }
}

// WithLogger tells Watch where to say that it lost etcd, and that it has it
// again. Without it nobody is told.
func WithLogger(log *slog.Logger) Option {
	return func(s *Store) { s.log = log }
}

// WithHealth has Watch tell how it stands: with an error when it has lost etcd,
// with nil at its beginning, after every change and when it has etcd again.
func WithHealth(tell func(error)) Option {
	return func(s *Store) { s.health = tell }
}

// New returns a store of the networks below prefix (see DefaultPrefix).
func New(client *clientv3.Client, prefix string, opts ...Option) *Store {
	s := &Store{
		client:      client,
		prefix:      prefix,
		callTimeout: callTimeout(client),
		log:         slog.New(slog.DiscardHandler),
		health:      func(error) {},
	}
	for _, opt := range opts {
		opt(s)
	}
	return s
}

// Config returns the network's config, and creates it from initial where there
// is none. The first to create it wins; the others get what it wrote.
func (s *Store) Config(ctx context.Context, network string, initial overlay.Initial) (overlay.Config, error) {
	k, err := newKeys(s.prefix, network)
	if err != nil {
		return overlay.Config{}, err
	}
	text, err := s.configText(ctx, k, initial)
	if err != nil {
		return overlay.Config{}, err
	}
	cfg, err := overlay.ParseConfig(text)
	if err != nil {
		return overlay.Config{}, s.wrap(err, "key %s", k.config())
	}
	return cfg, nil
}

// Networks returns the configs of all networks by name.
func (s *Store) Networks(ctx context.Context) (map[string]overlay.Config, error) {
	all, _, err := s.networks(ctx)
	if err != nil {
		return nil, s.wrap(err, "list the networks")
	}
	return all, nil
}

// Unreachable tells whether an error of a Store means that etcd did not answer.
func Unreachable(err error) bool {
	if said := (rpctypes.EtcdError{}); errors.As(err, &said) && said.Code() == codes.Unavailable {
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.Unavailable
}

// call bounds one call to etcd.
func (s *Store) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.callTimeout)
}

// wrap says what was asked of which endpoints.
func (s *Store) wrap(err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	return fmt.Errorf("%s at etcd %s: %w", what, strings.Join(s.client.Endpoints(), ","), s.explain(err))
}

// explain adds to a call that was not answered in time why no connection comes
// about: refused, an unknown certificate. The client waits for one in silence;
// a call that does not wait is told.
func (s *Store) explain(err error) error {
	id := identityOf(s.client)
	if !errors.Is(err, context.DeadlineExceeded) {
		return id.explain(err, s.prefix)
	}
	if why := id.hand.trouble.get(); why != nil {
		return fmt.Errorf("no answer: %w (%w)", why, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, probe := etcdserverpb.NewMaintenanceClient(s.client.ActiveConnection()).
		Status(ctx, &etcdserverpb.StatusRequest{}, grpc.WaitForReady(false))
	if why := status.Convert(probe); why.Code() == codes.Unavailable {
		return fmt.Errorf("no answer: %s (%w); see that it runs and that this host reaches it", why.Message(), err)
	}
	return fmt.Errorf("no answer (%w); see that it runs and that this host reaches it", err)
}
