package tool

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// resolve is the name of a network as it was typed: default is the one without
// a name, unless one is called that.
func (t *tool) resolve(ctx context.Context, typed string) (string, error) {
	if typed != "default" {
		return typed, nil
	}
	all, err := t.client.networks(ctx)
	if err != nil || slices.ContainsFunc(all, func(c report.Cluster) bool { return c.Network == typed }) {
		return typed, err
	}
	return "", nil
}

// complete offers the networks' names to the shell.
func (t *tool) complete(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := t.client.networks(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range all {
		names = append(names, named(c.Network))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (t *tool) networkCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "network", Short: "The cluster's flannel networks", Args: cobra.NoArgs}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(&cobra.Command{
		Use: "ls", Short: "List the flannel networks that etcd holds", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := t.client.networks(cmd.Context())
			if err != nil {
				return err
			}
			return t.print(all, func(p *printer) { p.networks(all) })
		},
	}, &cobra.Command{
		Use: "rm NETWORK", Short: "Remove a flannel network that no host has a lease in", Args: cobra.ExactArgs(1),
		Long: "rm removes a network's config from etcd. It is refused while a host has a lease in\nit: remove the Docker network there first. The network without a name is default.\n\n" +
			"With the setting SYNC_NETWORKS, rm first removes the Docker networks on it from every\nhost with that setting; it is refused while containers use one of them anywhere. NETWORK\nmay be the Docker network's name, too.",
		ValidArgsFunction: t.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := t.resolve(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			gone, err := t.client.remove(cmd.Context(), name)
			if err != nil {
				return err
			}
			return t.print(gone, func(p *printer) {
				for _, docker := range gone.Docker {
					p.line("Docker network %s is removed on every host", docker)
				}
				p.line("%s is removed", report.Title(gone.Network))
			})
		},
	})
	cmd.AddCommand(t.createCommand())
	return cmd
}

func (t *tool) createCommand() *cobra.Command {
	var subnet, backend string
	cmd := &cobra.Command{
		Use: "create NETWORK", Short: "Create a flannel network", Args: cobra.ExactArgs(1),
		Long: "create writes a network's config to etcd, as the first docker network create with\n--ipam-opt network=NETWORK does. Hosts join it with that.",
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := t.resolve(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			made, err := t.client.create(cmd.Context(), name, subnet, backend)
			if err != nil {
				return err
			}
			return t.print(made, func(p *printer) {
				option := ""
				if name != "" {
					option = " --ipam-opt network=" + name
				}
				p.line("%s is created: %s, %s", report.Title(name), both(made), made.Backend)
				p.line("on each host: docker network create -d flannel --ipam-driver flannel%s NAME", option)
			})
		},
	}
	cmd.Flags().StringVar(&subnet, "subnet", "", "its CIDR, as 10.9.0.0/16; a free one without this flag")
	cmd.Flags().StringVar(&backend, "backend", "", "vxlan, host-gw or udp; the setting BACKEND's without this flag")
	return cmd
}

func (p *printer) networks(all []report.Cluster) {
	if len(all) == 0 {
		p.line("etcd holds no flannel networks; the first docker network create -d flannel --ipam-driver flannel NAME makes one")
		return
	}
	head := []string{"NETWORK", "CIDR", "BACKEND", "LEASES", "HOSTS"}
	shared := slices.ContainsFunc(all, func(c report.Cluster) bool { return len(c.Docker) > 0 })
	if shared {
		head = append(head, "DOCKER")
	}
	rows := [][]cell{cells(head...)}
	for _, c := range all {
		var hosts []string
		for _, l := range c.Leases {
			if host := l.PublicIP.String(); !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
		if len(hosts) > 5 {
			hosts = append(hosts[:5], "…")
		}
		cidr := "unreadable"
		if c.CIDR.IsValid() {
			cidr = both(c)
		}
		row := []string{named(c.Network), cidr, c.Backend, fmt.Sprint(len(c.Leases)), strings.Join(hosts, " ")}
		if shared {
			row = append(row, strings.Join(c.Docker, " "))
		}
		rows = append(rows, cells(row...))
	}
	p.table("", rows)
}
