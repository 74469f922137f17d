package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/etcd"
)

// retirer is what the operator asks of the Docker networks that hosts share.
type retirer interface {
	// Docker lists the entries, by name.
	Docker(ctx context.Context) ([]blueprint.Entry, error)
	// Retire marks all Docker networks on a flannel network as removed
	// everywhere and returns their names; etcd.ErrUsed while containers use one.
	Retire(ctx context.Context, network string) ([]string, error)
}

// leavingTime is how long a removal waits for the hosts to give their leases back.
const leavingTime = 5 * time.Second

// shares fills in what the networks are called by Docker on all hosts.
func (o *operator) shares(ctx context.Context, all []report.Cluster) error {
	if o.shared == nil {
		return nil
	}
	entries, err := o.shared.Docker(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		for i := range all {
			if all[i].Network == e.Flannel && !e.Removed {
				all[i].Docker = append(all[i].Docker, e.Name)
			}
		}
	}
	return nil
}

// meant is the flannel network that a name is of: its own, or that of a Docker
// network which all hosts share.
func (o *operator) meant(ctx context.Context, name string) (string, error) {
	if o.shared == nil {
		return name, nil
	}
	all, err := o.store.Networks(ctx)
	if _, known := all[name]; err != nil || known {
		return name, err
	}
	entries, err := o.shared.Docker(ctx)
	if err != nil {
		return name, err
	}
	return resolve(name, entries)
}

// resolve finds the flannel network of a shared Docker network, name itself for an
// unknown one. The entry of one that was removed counts too, so that a removal can be
// finished, but not once another Docker network is in its place.
func resolve(name string, entries []blueprint.Entry) (string, error) {
	var former *blueprint.Entry
	for _, e := range entries {
		if e.Name != name {
			continue
		}
		if !e.Removed {
			return e.Flannel, nil
		}
		former = &e
	}
	if former == nil {
		return name, nil
	}
	for _, e := range entries {
		if !e.Removed && e.Flannel == former.Flannel {
			return "", refusal{http.StatusNotFound, fmt.Errorf("Docker network %s was removed before, and Docker network %s is on %s now: say %s if that is meant",
				name, e.Name, report.Title(e.Flannel), e.Name)}
		}
	}
	return former.Flannel, nil
}

// retire has every host remove its Docker networks on a flannel network, and waits
// a while for their leases to end.
func (o *operator) retire(ctx context.Context, network string) ([]string, error) {
	if o.shared == nil {
		return nil, nil
	}
	names, err := o.shared.Retire(ctx, network)
	if errors.Is(err, etcd.ErrUsed) {
		return nil, refusal{http.StatusConflict, err}
	}
	if err != nil || len(names) == 0 {
		return nil, err
	}
	o.log.Info("Docker networks are removed everywhere by the operator", "networks", names)
	ctx, cancel := context.WithTimeout(ctx, leavingTime)
	defer cancel()
	// What still stands when the time is up is the refusal of the removal.
	_ = o.store.Watch(ctx, network, func(snap overlay.Snapshot) {
		if len(snap.Leases) == 0 {
			cancel()
		}
	})
	return names, nil
}

// unfinished adds to a refusal because of leases what has been done already.
func (o *operator) unfinished(ctx context.Context, network string, err error) error {
	if o.shared == nil {
		return err
	}
	entries, failed := o.shared.Docker(ctx)
	var names []string
	for _, e := range entries {
		if e.Flannel == network && e.Removed {
			names = append(names, e.Name)
		}
	}
	if failed != nil || len(names) == 0 {
		return err
	}
	slices.Sort(names)
	return fmt.Errorf("%w; the hosts with SYNC_NETWORKS=true remove Docker network %s by themselves, those that are off or have just started a container on it as soon as they can: try again then",
		err, strings.Join(names, ", "))
}
