package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/embedded"
	"github.com/docker-flannel/docker-flannel/overlay/etcd"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Outside is what can be known of a host's networks without the running plugin:
// from its settings and its state files.
type Outside struct {
	settings Settings
	dial     etcd.Options
	state    string
}

// certs is where config.json's mount of certificates is in the plugin.
const certs = "/certs"

// Outer says where things of the plugin lie as seen from the host.
type Outer struct {
	Lookup func(string) (string, bool) // the plugin's settings
	State  string                      // of the state files, empty where unknown
	Certs  string                      // what the plugin sees as /certs, empty where unknown
}

// seen is a setting with the files that it names where the host has them.
func (o Outer) seen(name string) (string, bool) {
	value, given := o.Lookup(name)
	if rest, inside := strings.CutPrefix(value, certs+"/"); inside && o.Certs != "" {
		value = filepath.Join(o.Certs, rest)
	}
	return value, given
}

// NewOutside reads the settings; it asks nobody.
func NewOutside(o Outer) (*Outside, error) {
	s, err := ReadSettings(o.seen)
	if err != nil {
		return nil, err
	}
	out := &Outside{settings: s, state: o.State}
	out.dial = dialOptions(s, s.Endpoints)
	if len(s.Endpoints) == 0 {
		out.dial.Endpoints = []string{embedded.New(embeddedOptions("", s, slog.New(slog.DiscardHandler))).Endpoint()}
	}
	return out, nil
}

// Endpoints asks every etcd endpoint.
func (o *Outside) Endpoints(ctx context.Context) []report.Endpoint {
	return etcd.Examine(ctx, o.dial, o.settings.Prefix)
}

// Clusters lists every network's leases.
func (o *Outside) Clusters(ctx context.Context) (all []report.Cluster, err error) {
	err = o.store(func(s *etcd.Store) error {
		named, err := s.Survey(ctx)
		if err != nil {
			return err
		}
		for _, n := range named {
			c, err := s.Leases(ctx, n.Network)
			if err != nil {
				return err
			}
			all = append(all, c)
		}
		return nil
	})
	return all, err
}

// Keys are those below the prefix, with their values.
func (o *Outside) Keys(ctx context.Context) (text string, err error) {
	err = o.store(func(s *etcd.Store) (err error) {
		text, err = s.Text(ctx)
		return err
	})
	return text, err
}

// Forget deletes the lease of a host that is gone for good.
func (o *Outside) Forget(ctx context.Context, network string, l report.ClusterLease) error {
	return o.store(func(s *etcd.Store) error { return s.Forget(ctx, network, l) })
}

func (o *Outside) store(use func(*etcd.Store) error) (err error) {
	client, err := etcd.Dial(o.dial)
	if err != nil {
		return fmt.Errorf("prepare the connection to etcd: %w", err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	return use(etcd.New(client, o.settings.Prefix))
}

// Host is what the state files say of this host, and how the kernel differs from
// what they ask for. fs.ErrNotExist where there are none.
func (o *Outside) Host(ctx context.Context) (report.Host, []report.Difference, error) {
	if _, err := os.Stat(filepath.Join(o.state, overlay.StateFile)); o.state == "" || err != nil {
		return report.Host{}, nil, fmt.Errorf("the plugin's state files: %w", errors.Join(fs.ErrNotExist, err))
	}
	log := slog.New(slog.DiscardHandler)
	kern, err := kernel.Open(kernel.Options{Log: log})
	if err != nil {
		return report.Host{}, nil, fmt.Errorf("open netlink: %w", err)
	}
	defer func() { _ = kern.Close() }() // it was only read
	over, err := overlay.New(overlay.Options{
		Dir: o.state, Kernel: kern, Backends: backends, Release: kernel.Release(), Log: log,
		Underlay: kernel.UnderlaySpec{Iface: o.settings.Iface, PublicIP: o.settings.PublicIP}, MTU: o.settings.MTU, TTL: o.settings.LeaseTTL,
	})
	if err != nil {
		return report.Host{}, nil, err
	}
	found, err := audit(ctx, over.Wanted, kern.Audit)
	return over.Report(), found, err
}

// dialOptions are the settings' for a connection to etcd.
func dialOptions(s Settings, endpoints []string) etcd.Options {
	return etcd.Options{
		Endpoints: endpoints, CAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile,
		Username: s.Username, Password: string(s.Password), PasswordFile: s.PasswordFile, DialTimeout: dialTimeout, CallTimeout: callTimeout,
	}
}

// embeddedOptions are the settings' for the embedded etcd.
func embeddedOptions(state string, s Settings, log *slog.Logger) embedded.Options {
	return embedded.Options{
		Dir: state + "/etcd", Listen: s.Listen, CAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile, Log: log,
	}
}
