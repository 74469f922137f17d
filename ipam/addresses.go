package ipam

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	api "github.com/docker/go-plugins-helpers/ipam"
)

// The options of the engine's RequestAddress.
const (
	typeOption  = "RequestAddressType"
	typeGateway = "com.docker.network.gateway"
	macOption   = "com.docker.network.endpoint.macaddress"
)

// RequestAddress answers with the pool's gateway where the engine asks for
// that, with the address that --ip or --aux-address names, or with any. An
// address is on disk before it is answered; where that fails it is free again.
// A repeated call for one MAC address gets the same answer. The errors are the
// allocator's, and one for a pool that this host does not know.
func (c *Clerk) RequestAddress(ctx context.Context, req *api.RequestAddressRequest) (*api.RequestAddressResponse, error) {
	var want netip.Addr
	if req.Address != "" {
		addr, err := netip.ParseAddr(req.Address)
		if err != nil {
			return nil, fmt.Errorf("address %q: not an IP address; correct it or leave it out", req.Address)
		}
		want = addr.Unmap()
	}
	if mac := req.Options[macOption]; mac != "" {
		if _, err := net.ParseMAC(mac); err != nil {
			return nil, fmt.Errorf("MAC address %q: not one such as 02:42:0a:05:07:02; correct --mac-address or leave it out", mac)
		}
	}
	if req.Options[typeOption] == typeGateway {
		return c.requestGateway(req.PoolID, want)
	}
	if err := c.ready(req); err != nil {
		return nil, err
	}
	p, addr, fresh, err := c.take(ctx, req.PoolID, want, req.Options[macOption])
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := c.settle(p, addr); err != nil {
			return nil, err
		}
	}
	return answer(p, addr), nil
}

// ready refuses a container's address, which comes with its MAC address, while
// no flannel network stands on the pool: another driver's packets would not be
// carried.
func (c *Clerk) ready(req *api.RequestAddressRequest) error {
	subnet, _ := netip.ParsePrefix(req.PoolID) // no pool has the zero subnet
	if !subnet.IsValid() || req.Options[macOption] == "" || c.overlay.Attached(subnet) {
		return nil
	}
	return fmt.Errorf("pool %s: no flannel network of this host uses it; remove the network and create it with: docker network create -d flannel --ipam-driver flannel NAME", subnet)
}

// requestGateway answers with the gateway, which is nobody's to take.
func (c *Clerk) requestGateway(id string, want netip.Addr) (*api.RequestAddressResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.find(id)
	if err != nil {
		return nil, err
	}
	if want.IsValid() && want != p.Gateway() {
		return nil, fmt.Errorf("--gateway %s: the gateway is always the first address of the host's subnet, here %s; leave it out", want, p.Gateway())
	}
	return answer(p, p.Gateway()), nil
}

// take takes the address want, or any if that is zero, and marks it as unsaved
// if it was free. If another call has taken it for the same owner and is still
// saving, take waits for what becomes of that.
func (c *Clerk) take(ctx context.Context, id string, want netip.Addr, owner string) (p *pool, addr netip.Addr, fresh bool, err error) {
	for {
		c.mu.Lock()
		p, err = c.find(id)
		if err == nil {
			addr, fresh, err = p.take(want, owner)
		}
		if err != nil {
			c.mu.Unlock()
			return nil, netip.Addr{}, false, err
		}
		p.asked[addr] = time.Now()
		if fresh {
			p.unsaved[addr] = make(chan struct{})
		}
		saving := p.unsaved[addr]
		c.mu.Unlock()
		if fresh || saving == nil {
			return p, addr, fresh, nil
		}
		select {
		case <-saving:
		case <-ctx.Done():
			return nil, netip.Addr{}, false, fmt.Errorf("wait until address %s is on disk: %w", addr, ctx.Err())
		}
	}
}

// take is Take, or TakeExact where an address is wanted.
func (p *pool) take(want netip.Addr, owner string) (addr netip.Addr, fresh bool, err error) {
	if !want.IsValid() {
		return p.Take(owner)
	}
	fresh, err = p.TakeExact(want, owner)
	return want, fresh, err
}

// settle puts an unsaved address on disk, or takes it back if that fails.
func (c *Clerk) settle(p *pool, addr netip.Addr) error {
	err := c.commit()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		p.Release(addr)
	}
	close(p.unsaved[addr])
	delete(p.unsaved, addr)
	return err
}

// ReleaseAddress frees an address. One that is not in use, or of a pool that is
// not known, is no error, and an endpoint's address stays its own: the engine deletes an endpoint
// before it releases the address, so this is another's, refused with the same
// MAC address. Where the error says that the file could not be kept, the address is
// free nonetheless, and the next change brings the file up to date.
func (c *Clerk) ReleaseAddress(_ context.Context, req *api.ReleaseAddressRequest) error {
	addr, err := netip.ParseAddr(req.Address)
	if err != nil {
		return fmt.Errorf("release address %q: not an IP address; give the one that was handed out", req.Address)
	}
	subnet, err := poolID(req.PoolID)
	if err != nil {
		return fmt.Errorf("release address %s: %w", addr, err)
	}
	if c.overlay.Taken(subnet, addr.Unmap()) {
		return nil
	}
	released, err := c.release(req.PoolID, addr.Unmap())
	if err != nil || !released {
		return err
	}
	return c.commit()
}

// release frees an address in memory and tells whether it was held.
func (c *Clerk) release(id string, addr netip.Addr) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.lookup(id)
	if p == nil {
		return false, nil
	}
	if p.unsaved[addr] != nil {
		return false, fmt.Errorf("address %s: being handed out at this moment; release it once it is in use", addr)
	}
	return p.Release(addr), nil
}

// Reclaim frees an address that no container has, and tells whether it did. It
// does not where the address is held by another by now, or was answered to the
// engine since unasked.
func (c *Clerk) Reclaim(subnet netip.Prefix, h Holding, unasked time.Time) (bool, error) {
	c.mu.Lock()
	p := c.pools[subnet]
	freed := p != nil && slices.Contains(p.Held(), h) && !p.asked[h.Addr].After(unasked) && p.Release(h.Addr)
	c.mu.Unlock()
	if !freed {
		return false, nil
	}
	return true, c.commit()
}

// lookup returns a pool by the id that RequestPool answered, or nil; the caller
// holds mu.
func (c *Clerk) lookup(id string) *pool {
	subnet, _ := netip.ParsePrefix(id) // no pool has the zero subnet
	return c.pools[subnet]
}

// poolID reads what RequestPool answered.
func poolID(id string) (netip.Prefix, error) {
	subnet, err := netip.ParsePrefix(id)
	if err != nil {
		return subnet, fmt.Errorf("pool %q: not a subnet such as 10.5.7.0/24; give the pool's id", id)
	}
	return subnet, nil
}

// find is lookup with an error for the engine; the caller holds mu.
func (c *Clerk) find(id string) (*pool, error) {
	if p := c.lookup(id); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("pool %.80q: not known on this host; remove the network and create it anew", id)
}

// answer gives an address with its subnet's length.
func answer(p *pool, addr netip.Addr) *api.RequestAddressResponse {
	return &api.RequestAddressResponse{Address: netip.PrefixFrom(addr, p.Subnet().Bits()).String()}
}

// Held tells whether an address of any pool is handed out.
func (c *Clerk) Held(addr netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pools {
		if _, held := p.held[addr]; held {
			return true
		}
	}
	return false
}

// Addresses lists what is in use in every pool, pools without any included.
// Between this call and the next an address may be released and given anew.
func (c *Clerk) Addresses() map[netip.Prefix][]Holding {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[netip.Prefix][]Holding, len(c.pools))
	for subnet, p := range c.pools {
		all[subnet] = p.Held()
	}
	return all
}

// Usage is how many of a pool's addresses are in use, and how many can still be
// handed out.
type Usage struct{ Used, Free int }

// Usage counts every pool's addresses.
func (c *Clerk) Usage() map[netip.Prefix]Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[netip.Prefix]Usage, len(c.pools))
	for subnet, p := range c.pools {
		all[subnet] = Usage{Used: p.Used(), Free: p.Free()}
	}
	return all
}
