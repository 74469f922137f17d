package plugin

import (
	"fmt"
	"strings"
)

// family is one metric: what docs/metrics.md says of it, and Prometheus is told.
type family struct {
	name   string
	kind   string // counter, gauge or histogram
	help   string
	labels []string
}

// families lists every metric of ours, in the order people read them. Those of
// the Go runtime and the process come with them, under their usual names.
func families() []family {
	network := func(more ...string) []string { return append([]string{"network"}, more...) }
	return []family{
		{"flannel_build_info", "gauge", "What runs; the value is 1.", []string{"version", "revision", "go"}},
		{"flannel_ready", "gauge", "1 while /readyz says so.", nil},

		{"flannel_lease_held", "gauge", "1 while etcd has confirmed this host's lease.", network()},
		{"flannel_lease_conflict", "gauge", "1 while another host has this host's subnet: the alarm.", network()},
		{"flannel_lease_age_seconds", "gauge", "Time since the subnet was claimed first.", network()},
		{"flannel_lease_renewed_timestamp_seconds", "gauge", "When the lease was renewed last, in Unix time; 0 before the first time.", network()},
		{"flannel_lease_ttl_seconds", "gauge", "How long the lease lasts without being renewed.", network()},
		{"flannel_lease_renewals_total", "counter", "Tries to renew or claim the lease, by outcome: ok or error.", network("outcome")},

		{"flannel_leases", "gauge", "Leases of the cluster, as this host saw them last.", network()},
		{"flannel_peers", "gauge", "Other hosts, by state: reachable by this host's plan, or skipped.", network("state")},
		{"flannel_peer_rtt_seconds", "gauge", "Round-trip of the last echo that came back from a host through the network; none while none of the last ten does.", network("subnet", "public_ip")},
		{"flannel_peer_loss_ratio", "gauge", "Part of the last ten echoes to a host that did not come back, from 0 to 1.", network("subnet", "public_ip")},
		{"flannel_skipped_entries", "gauge", "Entries of etcd that this host cannot use now.", network()},
		{"flannel_skipped_entries_total", "counter", "Entries of etcd that this host could not use.", network()},

		{"flannel_addresses", "gauge", "Addresses of this host's subnet, by state: used or free.", network("state")},
		{"flannel_endpoints", "gauge", "Containers' endpoints on this host.", network()},

		{"flannel_packets_total", "counter", "Packets to and from other hosts, by direction: sent or received. host-gw has no device of its own: its bridge is counted.", network("backend", "direction")},
		{"flannel_bytes_total", "counter", "Bytes of those packets.", network("backend", "direction")},
		{"flannel_drops_total", "counter", "Packets dropped, by reason: of vxlan and host-gw what the kernel counts, of udp docs/metrics.md's list.", network("backend", "reason")},
		{"flannel_foreign_packets_total", "counter", "Packets dropped at a tunnel's UDP port because they came from no peer's address.", []string{"port"}},

		{"flannel_reconcile_duration_seconds", "histogram", "Passes of the loop that makes the kernel as wanted.", nil},
		{"flannel_reconcile_failures", "gauge", "Objects of the kernel that the last pass left not as wanted.", nil},
		{"flannel_repairs_total", "counter", "What others changed in the kernel and was put right, by kind.", []string{"kind"}},

		{"flannel_store_connected", "gauge", "1 while etcd answers; 0 also before it was asked.", nil},
		{"flannel_store_request_duration_seconds", "histogram", "Calls to etcd, by operation.", []string{"operation"}},
		{"flannel_store_errors_total", "counter", "Calls to etcd that were not answered, or not as they should be.", []string{"operation"}},

		{"flannel_rpc_duration_seconds", "histogram", "The engine's calls, by outcome: ok or error.", []string{"call", "outcome"}},
	}
}

// markdown is docs/metrics.md's table.
func markdown(all []family) string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, f := range all {
		labels := ""
		if len(f.labels) > 0 {
			labels = "`" + strings.Join(f.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, f.kind, labels, f.help)
	}
	return b.String()
}
