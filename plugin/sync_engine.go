package plugin

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
	"github.com/docker-flannel/docker-flannel/internal/report"
)

// makeTimeout bounds the creation of a network: the engine calls the plugin twice
// or more.
const makeTimeout = 30 * time.Second

// dockerd is the engine as the sync uses it.
type dockerd struct {
	client *client.Client
	self   string // this plugin's id
}

// Recognise fails unless the engine is the one that runs this plugin.
func (d dockerd) Recognise(ctx context.Context) error { return recognise(ctx, d.client, d.self) }

// List returns the engine's networks of this host; books are read afterwards, so
// that they hold whatever of ours the engine has.
func (d dockerd) List(ctx context.Context, books func() report.Host) ([]found, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	list, err := d.client.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return nil, err
	}
	ours := map[string]report.Network{}
	for _, n := range books().Networks {
		if n.DockerID != "" {
			ours[n.DockerID] = n
		}
	}
	var all []found
	for _, n := range list {
		book, known := ours[n.ID]
		if n.ConfigOnly || n.Scope != "local" {
			continue
		}
		if !known {
			all = append(all, found{Network: blueprint.Network{Name: n.Name}, ID: n.ID, Driver: n.Driver})
			continue
		}
		// The list leaves out who uses it.
		whole, err := d.client.NetworkInspect(ctx, n.ID, network.InspectOptions{})
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, found{Network: describe(whole, book), ID: n.ID, Driver: n.Driver, Ours: true, Containers: len(whole.Containers)})
	}
	return all, nil
}

// describe leaves out what is this host's alone: the subnet of its lease, gateways
// and addresses in that.
func describe(n network.Inspect, book report.Network) blueprint.Network {
	d := blueprint.Network{
		Name: n.Name, Flannel: book.Name, IPAM: n.IPAM.Options, Options: n.Options, Labels: n.Labels,
		Internal: n.Internal, Attachable: n.Attachable, IPv6: n.EnableIPv6,
	}
	for _, c := range n.IPAM.Config {
		if p, err := netip.ParsePrefix(c.Subnet); err == nil && (p == book.CIDR || p == book.IPv6CIDR) {
			d.Subnets = append(d.Subnets, p)
		}
	}
	return d
}

// Make creates a network and returns the engine's id of it. The driver's plain
// name is found whatever the plugin is called on this host.
func (d dockerd) Make(ctx context.Context, n blueprint.Network) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	ipam := map[string]string{} // as docker network create gives it
	maps.Copy(ipam, n.IPAM)
	options := network.CreateOptions{
		Driver: "flannel", IPAM: &network.IPAM{Driver: "flannel", Options: ipam},
		Options: n.Options, Labels: n.Labels, Internal: n.Internal, Attachable: n.Attachable,
	}
	if n.IPv6 {
		options.EnableIPv6 = &n.IPv6
	}
	for _, p := range n.Subnets {
		options.IPAM.Config = append(options.IPAM.Config, network.IPAMConfig{Subnet: p.String()})
	}
	made, err := d.client.NetworkCreate(ctx, n.Name, options)
	if err != nil {
		return "", err
	}
	return made.ID, nil
}

// Remove removes a network; the engine refuses it while containers use it.
func (d dockerd) Remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	err := d.client.NetworkRemove(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// Changes calls changed once it listens and after each event of a network, until
// the engine ends the connection.
func (d dockerd) Changes(ctx context.Context, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, errs := d.client.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", string(events.NetworkEventType)))})
	changed()
	telling := []events.Action{events.ActionCreate, events.ActionDestroy, events.ActionConnect, events.ActionDisconnect, events.ActionRemove}
	for {
		select {
		case m := <-messages:
			if slices.Contains(telling, m.Action) {
				changed()
			}
		case err := <-errs:
			return fmt.Errorf("listen to the engine's events: %w", err)
		}
	}
}
