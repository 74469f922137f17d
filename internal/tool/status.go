package tool

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// most is how many peers or endpoints are listed without --all.
const most = 20

func (t *tool) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "This host: its networks, lease, peers, repairs, and what is wrong", Args: cobra.NoArgs,
		Long: "status shows what the plugin of this host knows and does. It ends with exit code 1\nwhere something keeps the host from doing its part.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := t.client.status(cmd.Context())
			if err != nil {
				return err
			}
			if err := t.print(s, func(p *printer) { p.status(s, t.Now(), t.all) }); err != nil {
				return err
			}
			if len(s.Problems) > 0 {
				return errWrong
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&t.all, "all", false, fmt.Sprintf("list every peer and endpoint, not the first %d", most))
	return cmd
}

func (p *printer) status(s report.Status, now time.Time, all bool) {
	p.line("plugin   %s", build(s.Build))
	if s.PublicIP.IsValid() {
		p.line("host     %s on %s", s.PublicIP, s.Interface)
	}
	if len(s.Store.Endpoints) > 0 {
		p.line("etcd     %s: %s", strings.Join(s.Store.Endpoints, ","), p.store(s.Store, now))
	}
	if !s.Loop.Started.IsZero() {
		p.line("kernel   %s", p.loop(s.Loop, now))
	}
	for _, f := range s.Foreign {
		p.line("tunnel   udp %d takes packets of peers alone, %d of others dropped", f.Port, f.Packets)
	}
	for _, n := range s.Networks {
		p.line("")
		p.network(n, now, all)
	}
	if len(s.Networks) == 0 && s.PublicIP.IsValid() {
		p.line("\nno networks on this host; docker network create -d flannel --ipam-driver flannel NAME makes one")
	}
	p.findings(s)
}

// findings are what is wrong and what should be known, with what to do.
func (p *printer) findings(s report.Status) {
	if len(s.Problems)+len(s.Notes) == 0 {
		p.line("\n%s", p.in(green, "all is well"))
		return
	}
	p.line("")
	for _, f := range s.Problems {
		p.line("%s", p.in(red, "wrong: "+f.Text))
		p.next(f)
	}
	for _, f := range s.Notes {
		p.line("%s", p.in(yellow, "note: "+f.Text))
		p.next(f)
	}
}

func (p *printer) next(f report.Finding) {
	if f.Next != "" {
		p.line("  next: %s", f.Next)
	}
}

func build(b report.Build) string {
	text := b.Version
	if b.Revision != "" && !strings.Contains(b.Version, head(b.Revision)) {
		text += " " + head(b.Revision)
	}
	return text
}

func (p *printer) store(s report.Store, now time.Time) string {
	kind := ""
	if s.Embedded {
		kind = ", embedded here"
	}
	switch {
	case !s.Asked:
		return "not asked yet" + kind
	case s.Connected:
		return p.in(green, "answers") + " since " + brief(now.Sub(s.Since)) + kind
	}
	return p.in(yellow, "does not answer since "+brief(now.Sub(s.Since))) + kind
}

func (p *printer) loop(l report.Loop, now time.Time) string {
	text := p.in(green, "as wanted")
	if len(l.Failures) > 0 {
		text = p.in(red, fmt.Sprintf("%d objects not as wanted", len(l.Failures)))
	}
	if !l.Passed.IsZero() {
		text += fmt.Sprintf(", looked at %s ago in %s", brief(now.Sub(l.Passed)), l.Took.Round(10*time.Microsecond))
	}
	var repairs []string
	for _, r := range l.Repairs {
		repairs = append(repairs, fmt.Sprintf("%d %s (%s ago)", r.Count, r.Kind, brief(now.Sub(r.Last))))
	}
	if len(repairs) > 0 {
		text += "; repaired since " + brief(now.Sub(l.Started)) + ": " + strings.Join(repairs, ", ")
	}
	return text
}

func (p *printer) network(n report.Network, now time.Time, all bool) {
	p.line("%s  %s  %s  MTU %d", p.in(bold, n.Title()), n.CIDR, n.Backend, n.MTU)
	p.line("  lease    %s  %s", n.Subnet, p.lease(n.Lease, now))
	switch {
	case n.IPv6Subnet.IsValid() && n.PublicIPv6.IsValid():
		p.line("  ipv6     %s  of %s, PublicIPv6 %s", n.IPv6Subnet, n.IPv6CIDR, n.PublicIPv6)
	case n.IPv6Subnet.IsValid():
		p.line("  ipv6     %s  of %s", n.IPv6Subnet, n.IPv6CIDR)
	case n.IPv6CIDR.IsValid():
		p.line("  ipv6     none on this host; the network has %s", n.IPv6CIDR)
	}
	if n.DockerID != "" {
		p.line("  docker   network %s, bridge %s, packets by %s", head(n.DockerID), n.Bridge, n.Device)
	}
	if n.Used != nil {
		p.line("  use      %d endpoints, %d addresses used, %d free", len(n.Ports), n.Used.Used, n.Used.Free)
	}
	rows := [][]cell{cells("PEER", "IPV6 PEER", "HOST", "IPV6 HOST", "BACKEND", "STATE")}
	hidden := 0
	for _, peer := range n.Peers {
		state := reached(peer.Reach)
		if peer.Skipped != "" {
			state = cell{"skipped: " + peer.Skipped, yellow}
		} else if !all && len(rows) > most && state.colour == green {
			hidden++
			continue
		}
		rows = append(rows, append(cells(peer.Subnet.String(), known(peer.IPv6Subnet), peer.PublicIP.String(), known(peer.PublicIPv6), peer.Backend), state))
	}
	p.table("  ", rows)
	p.more(hidden)
	rows = [][]cell{cells("ENDPOINT", "ADDRESS", "IPV6 ADDRESS", "MAC")}
	ports := n.Ports
	if !all {
		ports = ports[:min(len(ports), most)]
	}
	for _, port := range ports {
		rows = append(rows, cells(head(port.Endpoint), port.Addr.String(), known(port.IPv6), port.MAC))
	}
	p.table("  ", rows)
	p.more(len(n.Ports) - len(ports))
	rows = [][]cell{cells("PUBLISHED", "LEADS TO", "ENDPOINT")}
	for _, pub := range n.Published {
		rows = append(rows, cells(pub.Host.String()+"/"+pub.Proto, pub.To.String(), head(pub.Endpoint)))
	}
	p.table("  ", rows)
	rows = [][]cell{cells("SKIPPED", "SINCE", "REASON")}
	for _, s := range n.Skipped {
		rows = append(rows, cells(s.Key, brief(now.Sub(s.Since)), s.Reason))
	}
	p.table("  ", rows)
}

func (p *printer) more(hidden int) {
	if hidden > 0 {
		p.line("  … and %d more: --all", hidden)
	}
}

func (p *printer) lease(l report.Lease, now time.Time) string {
	var parts []string
	switch l.State {
	case report.Held:
		parts = append(parts, p.in(green, "held"))
	case report.Taken:
		owner := "another host"
		if l.TakenBy.IsValid() {
			owner = l.TakenBy.String()
		}
		parts = append(parts, p.in(red, "TAKEN by "+owner))
	case report.Lost:
		parts = append(parts, p.in(red, string(l.State)))
	case report.Unconfirmed, report.Returning, report.None:
		parts = append(parts, p.in(yellow, string(l.State)))
	}
	if !l.Since.IsZero() {
		parts = append(parts, "for "+brief(now.Sub(l.Since)))
	}
	if !l.Renewed.IsZero() {
		parts = append(parts, "renewed "+brief(now.Sub(l.Renewed))+" ago")
	}
	return strings.Join(append(parts, "kept "+brief(l.TTL)+" without renewal"), ", ")
}

// reached is what the last echoes to a host say; before the first one, that there
// is a way to it.
func reached(r *report.Reach) cell {
	switch {
	case r == nil:
		return cell{"reachable", green}
	case r.Lost == r.Sent:
		return cell{fmt.Sprintf("silent: %d echoes lost; see flannel doctor", r.Lost), red}
	case r.Lost > 0:
		return cell{fmt.Sprintf("reachable, %s, %.0f%% lost", millis(r.RTT), 100*r.Loss()), yellow}
	}
	return cell{"reachable, " + millis(r.RTT), green}
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
