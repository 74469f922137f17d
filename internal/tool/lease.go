package tool

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

func (t *tool) leasesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "leases [NETWORK]", Short: "The cluster's leases as etcd holds them", Args: cobra.MaximumNArgs(1),
		Long:              "leases lists every host's subnet, of one network or of all: whose it is, how long it\nlasts without renewal, and what is odd about it.",
		ValidArgsFunction: t.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			var network *string
			if len(args) > 0 {
				name, err := t.resolve(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				network = &name
			}
			all, err := t.client.leases(cmd.Context(), network)
			if err != nil {
				return err
			}
			return t.print(all, func(p *printer) { p.leases(all) })
		},
	}
}

func (p *printer) leases(all []report.Cluster) {
	if len(all) == 0 {
		p.networks(nil)
	}
	for i, c := range all {
		if i > 0 {
			p.line("")
		}
		p.line("%s  %s  %s  %d leases", p.in(bold, report.Title(c.Network)), both(c), c.Backend, len(c.Leases))
		rows := [][]cell{cells("SUBNET", "IPV6 SUBNET", "HOST", "IPV6 HOST", "BACKEND", "LEFT", "")}
		for _, l := range c.Leases {
			left := "unknown"
			switch {
			case l.Reserved:
				left = "reserved"
			case l.TTL > 0:
				left = brief(l.Left) + " of " + brief(l.TTL)
			}
			remark := cell{"", plain}
			if l.Here {
				remark = cell{"this host", green}
			}
			if len(l.Odd) > 0 {
				remark = cell{strings.TrimPrefix(remark.text+"; "+strings.Join(l.Odd, "; "), "; "), yellow}
			}
			rows = append(rows, append(cells(l.Subnet.String(), known(l.IPv6Subnet), l.PublicIP.String(), known(l.PublicIPv6), l.Backend, left), remark))
		}
		p.table("  ", rows)
		rows = [][]cell{cells("NO LEASE", "REASON")}
		for _, o := range c.Odd {
			rows = append(rows, cells(o.Key, o.Reason))
		}
		p.table("  ", rows)
	}
}

// both are a network's CIDRs, of IPv4 and, where it has one, of IPv6.
func both(c report.Cluster) string {
	return strings.TrimSpace(c.CIDR.String() + " " + known(c.IPv6CIDR))
}

func (t *tool) leaveCommand() *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use: "leave", Short: "Give this host's leases back at once", Args: cobra.NoArgs,
		Long: "leave gives this host's leases back, of one network or of all, instead of keeping\nthem until their time is over. It is refused while a Docker network uses them.\nReservations, leases without a time to live, stay.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var name *string
			if cmd.Flags().Changed("network") {
				known, err := t.resolve(cmd.Context(), network)
				if err != nil {
					return err
				}
				name = &known
			}
			left, err := t.client.leave(cmd.Context(), name)
			if err != nil {
				return err
			}
			return t.print(left, func(p *printer) { p.left(left) })
		},
	}
	cmd.Flags().StringVar(&network, "network", "", "the flannel network, default for the one without a name; all without this flag")
	_ = cmd.RegisterFlagCompletionFunc("network", t.complete) // fails only for a flag that is not there
	return cmd
}

func (p *printer) left(left []report.Left) {
	nothing := true
	for _, l := range left {
		for _, subnet := range l.Given {
			nothing = false
			p.line("%s of %s is given back", subnet, report.Title(l.Network))
		}
		for _, subnet := range l.Reserved {
			nothing = false
			p.line("%s of %s stays: it is a reservation, without a time to live; etcdctl del removes it", subnet, report.Title(l.Network))
		}
	}
	if nothing {
		p.line("this host holds no lease")
	}
}

func (t *tool) envCommand() *cobra.Command {
	return &cobra.Command{
		Use: "env [NETWORK]", Short: "A network as flanneld's subnet.env would say it", Args: cobra.MaximumNArgs(1),
		Long:              "env prints what flanneld writes to subnet.env. FLANNEL_IPMASQ is false: egress is the\nengine's own.",
		ValidArgsFunction: t.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.client.status(cmd.Context())
			if err != nil {
				return err
			}
			n, err := choose(s.Networks, args)
			if err != nil {
				return err
			}
			gateway := netip.PrefixFrom(n.Subnet.Addr().Next(), n.Subnet.Bits())
			vars := [][2]string{
				{"FLANNEL_NETWORK", n.CIDR.String()}, {"FLANNEL_SUBNET", gateway.String()},
			}
			if n.IPv6Subnet.IsValid() {
				gateway := netip.PrefixFrom(n.IPv6Subnet.Addr().Next(), n.IPv6Subnet.Bits())
				vars = append(vars, [2]string{"FLANNEL_IPV6_NETWORK", n.IPv6CIDR.String()}, [2]string{"FLANNEL_IPV6_SUBNET", gateway.String()})
			}
			vars = append(vars, [][2]string{
				{"FLANNEL_MTU", fmt.Sprint(n.MTU)}, {"FLANNEL_IPMASQ", "false"},
			}...)
			asJSON := map[string]string{}
			for _, v := range vars {
				asJSON[v[0]] = v[1]
			}
			return t.print(asJSON, func(p *printer) {
				for _, v := range vars {
					p.line("%s=%s", v[0], v[1])
				}
			})
		},
	}
}

// choose is the network that was typed or, where none was, the only one or the
// one without a name.
func choose(all []report.Network, typed []string) (report.Network, error) {
	var names []string
	for _, n := range all {
		if len(typed) == 0 && (len(all) == 1 || n.Name == "") || len(typed) > 0 && named(n.Name) == typed[0] {
			return n, nil
		}
		names = append(names, named(n.Name))
	}
	if len(names) == 0 {
		return report.Network{}, fmt.Errorf("this host is in no flannel network; docker network create -d flannel --ipam-driver flannel NAME joins one")
	}
	return report.Network{}, fmt.Errorf("say which network: this host is in %s", strings.Join(names, ", "))
}
