package report

import (
	"net/netip"
	"time"
)

// Cluster is what the store holds of one network.
type Cluster struct {
	Network string // empty for the default network
	CIDR    netip.Prefix
	// IPv6CIDR is the network's IPv6 half; zero without one.
	IPv6CIDR netip.Prefix `json:",omitzero"`
	Backend  string
	Leases   []ClusterLease // by subnet
	Odd      []Odd          // by key
	// Docker names the Docker networks on it that all hosts share.
	Docker []string `json:",omitempty"`
}

// ClusterLease is one host's subnet as the store holds it.
type ClusterLease struct {
	Subnet   netip.Prefix
	PublicIP netip.Addr
	// IPv6Subnet and PublicIPv6 are zero where the lease is of IPv4 alone.
	IPv6Subnet netip.Prefix `json:",omitzero"`
	PublicIPv6 netip.Addr   `json:",omitzero"`
	Backend    string
	Reserved   bool          `json:",omitempty"` // no time to live
	TTL        time.Duration `json:",omitempty"` // that etcd granted; zero where unknown
	Left       time.Duration `json:",omitempty"` // until it ends without renewal
	Here       bool          `json:",omitempty"` // this host's
	Odd        []string      `json:",omitempty"` // what is strange about it
}

// Odd is a key that is no usable lease.
type Odd struct {
	Key, Reason string
	// Readable says that it is a lease, and some host's, though of no use as it is.
	Readable bool `json:",omitempty"`
}

// Left is what flannel leave did.
type Left struct {
	Network  string
	Given    []netip.Prefix // given back
	Reserved []netip.Prefix // without a time to live: they stay
}

// Removed is what the removal of a network did.
type Removed struct {
	Network string
	Docker  []string `json:",omitempty"` // Docker networks that were removed on all hosts
}
