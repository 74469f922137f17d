package overlay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Store is the cluster's shared truth: per network one config and one lease a
// host. The network's name is empty for the default network. Every call ends
// with ctx; an error names the endpoints and what was asked of them.
type Store interface {
	// Config returns the network's config. Where there is none and initial
	// is not nil, it creates what that returns by compare-and-create first;
	// the answer is what the store holds afterwards, whoever wrote it.
	// Without either it returns ErrNoConfig.
	Config(ctx context.Context, network string, initial Initial) (Config, error)
	// Networks returns the configs of all networks by name, without those
	// that cannot be read.
	Networks(ctx context.Context) (map[string]Config, error)
	// Claim makes one subnet this host's and returns its lease. A host that
	// holds a lease already (same PublicIP) keeps its subnet, with the
	// claim's data written over the old; one without the IPv6 subnet that the
	// claim asks for, or with one that it does not, is replaced by another,
	// unless it is a reservation. Errors: *TakenError, ErrFull.
	Claim(ctx context.Context, network string, claim Claim) (Lease, error)
	// Keep renews the lease's time to live without changing its key.
	// ErrLeaseLost when the key is gone or belongs to another host.
	Keep(ctx context.Context, network string, lease Lease) error
	// Release gives the lease back if it is still this host's; a lease
	// without a time to live (a reservation) stays.
	Release(ctx context.Context, network string, lease Lease) error
	// Watch calls emit with the whole truth once at the start and after
	// every change, until ctx ends. It survives compaction and lost
	// connections by reading everything anew; it returns ctx's error, or at
	// once an error for a network name that cannot be a key.
	Watch(ctx context.Context, network string, emit func(Snapshot)) error
	// Moved tells that the host's address has changed, so that what was
	// connected from the old one is connected anew.
	Moved()
}

// Initial makes the config of a new network, seeing those of all others by name.
// The store holds no other network when it creates the config: where one came in
// between, Initial is called again.
type Initial func(others map[string]Config) ([]byte, error)

// Lease is one host's subnet of a network.
type Lease struct {
	Subnet        netip.Prefix
	IPv6Subnet    netip.Prefix // zero without IPv6
	PublicIP      netip.Addr
	PublicIPv6    netip.Addr      // zero without an IPv6 underlay
	BackendType   string          // empty in leases of the udp backend
	BackendData   json.RawMessage // what the backend publishes, may be empty
	BackendV6Data json.RawMessage
	Reserved      bool // no time to live
}

// Claim is what a host asks of Store.Claim.
type Claim struct {
	PublicIP    netip.Addr
	BackendType string
	BackendData json.RawMessage
	// IPv6 asks for an IPv6 subnet beside the IPv4 one, in one lease; the
	// network must have IPv6 then.
	IPv6          bool
	PublicIPv6    netip.Addr
	BackendV6Data json.RawMessage
	// Former is the PublicIP that the host had before, zero for none. A lease
	// that says it, and the claim's BackendData, is this host's own too.
	Former netip.Addr
	Prefer netip.Prefix // the host's earlier subnet; zero for none
	Must   bool         // Prefer or *TakenError
	// PreferIPv6 is the host's earlier IPv6 subnet; zero for none. With
	// MustIPv6 it is had or *TakenError is returned.
	PreferIPv6 netip.Prefix
	MustIPv6   bool
	// Avoid tells which subnets, of either family, this host cannot use, with
	// the reason; it may be nil. A lease that is kept is not asked about, nor is Must's.
	Avoid func(netip.Prefix) error
	TTL   time.Duration // of the lease, renewed by Keep
}

// Snapshot is a network's whole truth at one revision. Leases are valid, lie
// inside Config and are sorted by subnet; everything else is in Junk. Config is
// the last good one, zero (and then without leases) before the first. Revision
// may go back when the store was restored. Receivers must not modify it.
type Snapshot struct {
	Config Config
	// Configured is false while the config key is missing, and before the
	// first good one; an unreadable one leaves the last good one in use.
	Configured bool
	Leases     []Lease
	Junk       []Junk
	Revision   int64
}

// ofIPv4 is the snapshot without what it says of IPv6.
func (s Snapshot) ofIPv4() Snapshot {
	s.Config.EnableIPv6, s.Config.IPv6Network, s.Config.IPv6SubnetLen = false, netip.Prefix{}, 0
	s.Config.IPv6SubnetMin, s.Config.IPv6SubnetMax = netip.Addr{}, netip.Addr{}
	s.Leases = slices.Clone(s.Leases)
	for i := range s.Leases {
		l := &s.Leases[i]
		l.IPv6Subnet, l.PublicIPv6, l.BackendV6Data = netip.Prefix{}, netip.Addr{}, nil
	}
	return s
}

// Junk is a key that was skipped, and why.
type Junk struct{ Key, Reason string }

var (
	// ErrNoConfig means that the network's config key does not exist.
	ErrNoConfig = errors.New("network has no config")
	// ErrLeaseLost means that the lease is gone or another host's.
	ErrLeaseLost = errors.New("lease lost")
	// ErrNoIPv6 means that IPv6 was asked of a network without it.
	ErrNoIPv6 = errors.New("network has no IPv6")
	// ErrFull means that no subnet is free.
	ErrFull = errors.New("no free subnet")
)

// TakenError says that another host holds the subnet that was asked for.
type TakenError struct {
	Subnet netip.Prefix
	Owner  netip.Addr // PublicIP of the holder
}

func (e *TakenError) Error() string {
	if !e.Owner.IsValid() {
		return fmt.Sprintf("subnet %s is held by a lease that cannot be read", e.Subnet)
	}
	return fmt.Sprintf("subnet %s is leased to host %s", e.Subnet, e.Owner)
}
