// Package ipam is the address clerk: it answers the engine's calls about pools
// and addresses. A pool is this host's subnet of one flannel network, had from
// the overlay room; which of its addresses are in use is known here alone, kept
// in one file, and on disk before the engine is answered. Handing out an
// address needs neither etcd nor the overlay room.
package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	api "github.com/docker/go-plugins-helpers/ipam"

	"github.com/docker-flannel/docker-flannel/internal/statefile"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// Pools is what the clerk asks of the overlay room.
type Pools interface {
	// Acquire returns this host's subnet of a network. It refuses a subnet
	// that a Docker network of this host uses already; so one that it
	// returns again is left over from a network that is gone.
	Acquire(ctx context.Context, req overlay.Request) (overlay.Network, error)
	// Release ends the use of a subnet; an unknown one is no error.
	Release(ctx context.Context, subnet netip.Prefix) error
	// Attached tells whether a flannel network stands on the subnet.
	Attached(subnet netip.Prefix) bool
	// Taken tells whether an endpoint of this host has the address.
	Taken(subnet netip.Prefix, addr netip.Addr) bool
}

// Clerk keeps the pools and addresses of this host. Its methods may be called
// concurrently and repeated.
type Clerk struct {
	overlay Pools
	file    *statefile.Writer
	turn    chan struct{} // filled during a pool call, which may take seconds

	mu    sync.Mutex // never held during a call to the overlay or the disk
	pools map[netip.Prefix]*pool
}

// pool is one subnet and its addresses; the clerk's mu guards it.
type pool struct {
	*Allocator
	network string // flannel's name for it, empty for the default one
	// unsaved holds the addresses whose taking is not on disk yet. Until
	// the channel closes they belong to the call that took them.
	unsaved map[netip.Addr]chan struct{}
	asked   map[netip.Addr]time.Time // when this process last answered with the address
}

// saved is the content of the state file.
type saved struct {
	Version int         `json:"version"`
	Pools   []savedPool `json:"pools"`
}

type savedPool struct {
	Network string `json:"network,omitempty"`
	State
}

// version is the file format's; another one is refused rather than misread.
const version = 1

// New loads the clerk's state from path, where it will be kept; without a file
// it begins empty. The error names the file and says what to do.
func New(path string, pools Pools) (*Clerk, error) {
	c := &Clerk{overlay: pools, turn: make(chan struct{}, 1), pools: map[netip.Prefix]*pool{}}
	c.file = statefile.NewWriter(path, c.snapshot)
	var state saved
	err := statefile.Load(path, &state)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load addresses: %w", err)
	}
	if err := c.restore(state); err != nil {
		return nil, fmt.Errorf("load addresses: state file %s: %w; put a good copy in its place, or move it away to begin without it", path, err)
	}
	return c, nil
}

// restore enters what was saved.
func (c *Clerk) restore(state saved) error {
	if state.Version != version {
		return fmt.Errorf("version %d, this program reads version %d", state.Version, version)
	}
	for _, s := range state.Pools {
		a, err := Restore(s.State)
		if err != nil {
			return err
		}
		if c.pools[s.Subnet] != nil {
			return fmt.Errorf("subnet %s: listed twice", s.Subnet)
		}
		c.pools[s.Subnet] = newPool(s.Network, a)
	}
	return nil
}

func newPool(network string, a *Allocator) *pool {
	return &pool{Allocator: a, network: network, unsaved: map[netip.Addr]chan struct{}{}, asked: map[netip.Addr]time.Time{}}
}

// snapshot is what the state file is to hold.
func (c *Clerk) snapshot() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := saved{Version: version, Pools: []savedPool{}}
	for _, subnet := range c.subnets() {
		p := c.pools[subnet]
		state.Pools = append(state.Pools, savedPool{p.network, p.State()})
	}
	return state
}

// commit returns once every change made so far is on disk.
func (c *Clerk) commit() error {
	if err := c.file.Commit(); err != nil {
		return fmt.Errorf("keep addresses: %w; mend that and try again", err)
	}
	return nil
}

// CapabilitiesResponse is the helpers' type with the field that it lacks.
type CapabilitiesResponse struct {
	RequiresMACAddress    bool
	RequiresRequestReplay bool
}

// Capabilities asks the engine for each container's MAC address, by which a
// repeated call and a restarted container are known, and for no replay of calls
// when the engine restarts: the state file knows more.
func (c *Clerk) Capabilities() CapabilitiesResponse {
	return CapabilitiesResponse{RequiresMACAddress: true}
}

// AddressSpaces names the one address space.
func (c *Clerk) AddressSpaces() api.AddressSpacesResponse {
	return api.AddressSpacesResponse{LocalDefaultAddressSpace: AddressSpace, GlobalDefaultAddressSpace: AddressSpace}
}
