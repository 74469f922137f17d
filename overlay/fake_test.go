package overlay_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// memory is a Store in memory, shared by the hosts of a test.
type memory struct {
	mu      sync.Mutex
	config  []byte
	leases  map[netip.Prefix]overlay.Lease
	changed chan struct{}
	down    error // what every call answers while set
}

func newMemory() *memory {
	return &memory{leases: map[netip.Prefix]overlay.Lease{}, changed: make(chan struct{})}
}

// held is a copy of the leases.
func (m *memory) held() map[netip.Prefix]overlay.Lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.leases)
}

// edit changes the truth and wakes the watchers.
func (m *memory) edit(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *memory) Config(_ context.Context, _ string, initial overlay.Initial) (overlay.Config, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return overlay.Config{}, m.down
	}
	if m.config == nil && initial != nil {
		var err error
		if m.config, err = initial(nil); err != nil {
			return overlay.Config{}, err
		}
	}
	if m.config == nil {
		return overlay.Config{}, overlay.ErrNoConfig
	}
	return overlay.ParseConfig(m.config)
}

func (m *memory) Networks(context.Context) (map[string]overlay.Config, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil || m.config == nil {
		return nil, m.down
	}
	cfg, err := overlay.ParseConfig(m.config)
	return map[string]overlay.Config{"": cfg}, err
}

func (m *memory) Claim(ctx context.Context, _ string, c overlay.Claim) (overlay.Lease, error) {
	cfg, err := m.Config(ctx, "", nil)
	if err != nil {
		return overlay.Lease{}, err
	}
	want := c.Prefer
	if !c.Must {
		want = m.choose(cfg, c)
	}
	if !want.IsValid() {
		return overlay.Lease{}, overlay.ErrFull
	}
	lease := overlay.Lease{Subnet: want, PublicIP: c.PublicIP, BackendType: c.BackendType, BackendData: c.BackendData}
	if c.IPv6 {
		lease.PublicIPv6, lease.BackendV6Data = c.PublicIPv6, c.BackendV6Data
		if lease.IPv6Subnet = c.PreferIPv6; !lease.IPv6Subnet.IsValid() {
			lease.IPv6Subnet = cfg.IPv6Subnet(int(want.Addr().As4()[2]) - 1)
		}
	}
	m.mu.Lock()
	old, taken := m.leases[want]
	m.mu.Unlock()
	if taken && old.PublicIP != c.PublicIP && old.PublicIP != c.Former {
		return lease, &overlay.TakenError{Subnet: want, Owner: old.PublicIP}
	}
	m.edit(func() { m.leases[want] = lease })
	return lease, nil
}

// choose is the host's own lease, the preferred subnet, or the first free one.
func (m *memory) choose(cfg overlay.Config, c overlay.Claim) netip.Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	for subnet, lease := range m.leases {
		if lease.PublicIP == c.PublicIP {
			return subnet
		}
	}
	free := func(p netip.Prefix) bool {
		_, taken := m.leases[p]
		return !taken && cfg.Fits(p) == nil && c.Avoid(p) == nil
	}
	if free(c.Prefer) {
		return c.Prefer
	}
	for p := range cfg.Subnets() {
		if free(p) {
			return p
		}
	}
	return netip.Prefix{}
}

func (m *memory) Keep(_ context.Context, _ string, l overlay.Lease) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	if own := m.leases[l.Subnet]; own.PublicIP != l.PublicIP || own.IPv6Subnet != l.IPv6Subnet {
		return overlay.ErrLeaseLost
	}
	return nil
}

func (m *memory) Release(_ context.Context, _ string, l overlay.Lease) error {
	m.mu.Lock()
	down := m.down
	m.mu.Unlock()
	if down != nil {
		return down
	}
	m.edit(func() {
		if m.leases[l.Subnet].PublicIP == l.PublicIP {
			delete(m.leases, l.Subnet)
		}
	})
	return nil
}

func (*memory) Moved() {}

func (m *memory) Watch(ctx context.Context, _ string, emit func(overlay.Snapshot)) error {
	for {
		m.mu.Lock()
		var s overlay.Snapshot
		if m.config != nil {
			s.Config, _ = overlay.ParseConfig(m.config)
			s.Configured = true
		}
		for _, subnet := range slices.SortedFunc(maps.Keys(m.leases), netip.Prefix.Compare) {
			s.Leases = append(s.Leases, m.leases[subnet])
		}
		changed, down := m.changed, m.down
		m.mu.Unlock()
		if down == nil {
			emit(s)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errDown = errors.New("etcd at http://192.0.2.1:2379 does not answer")

// board is a Kernel that holds a State and nothing else.
type board struct {
	mu     sync.Mutex
	state  kernel.State
	refuse map[string]error // by object
	under  kernel.Underlay
	routes []netip.Prefix // of the host itself
	// foreign is a device of another program.
	foreign string
	wake    func() // of Watch
	stirred bool   // before there was one
	// keep is what every state must have from now on; missed is the first
	// that had not.
	keep, missed string
	restored     bool // a device's checksum offload was wished on
	// made is how often each veth pair was to be made, each time with another
	// pass to follow at once.
	made map[string]int
	// taken are ports that are held, by us or, false, by other programs.
	taken map[string]bool
}

func newBoard(ip string) *board {
	addr := netip.MustParseAddr(ip)
	return &board{
		refuse: map[string]error{}, taken: map[string]bool{}, made: map[string]int{},
		under: kernel.Underlay{Name: "eth0", Index: 2, MTU: 1500, Addr: addr, PublicIP: addr},
	}
}

func (b *board) Apply(_ context.Context, want kernel.State) kernel.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = want
	b.restored = b.restored || strings.Contains(want.String(), "txsum on")
	if b.missed == "" && !strings.Contains(want.String(), b.keep) {
		b.missed = want.String()
	}
	for _, v := range want.Veths {
		if v.Create {
			b.made[v.Name]++
			b.stir()
		}
	}
	var res kernel.Result
	for object, err := range b.refuse {
		res.Failed = append(res.Failed, kernel.Failure{Object: object, Err: err})
	}
	return res
}

func (b *board) Watch(ctx context.Context, wake func()) error {
	b.mu.Lock()
	b.wake = wake
	if b.stirred {
		b.stirred = false
		wake()
	}
	b.mu.Unlock()
	<-ctx.Done()
	b.mu.Lock()
	b.wake = nil
	b.mu.Unlock()
	return ctx.Err()
}

// stir tells the watcher, with mu held; one that comes later is told then.
func (b *board) stir() {
	if b.wake == nil {
		b.stirred = true
		return
	}
	b.wake()
}

// move gives the host another address, and tells the watcher.
func (b *board) move(ip string) {
	b.mu.Lock()
	b.under.Addr = netip.MustParseAddr(ip)
	b.under.PublicIP = b.under.Addr
	b.stir()
	b.mu.Unlock()
}

func (b *board) wasRestored() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.restored
}

// guard begins to watch for states without a part, and returns the first one.
func (b *board) guard(part string) func() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keep, b.missed = part, ""
	return func() string {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.missed
	}
}

// occupy gives the host a route of its own.
func (b *board) occupy(cidr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.routes = append(b.routes, netip.MustParsePrefix(cidr))
}

// narrow gives the underlay another MTU, and tells the watcher.
func (b *board) narrow(mtu int) {
	b.mu.Lock()
	b.under.MTU = mtu
	b.stir()
	b.mu.Unlock()
}

// prefix24 is the /24 of an address.
func prefix24(four [4]byte) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4(four), 24) }

// deny has the kernel refuse an object, or with nil no more.
func (b *board) deny(object string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		delete(b.refuse, object)
		return
	}
	b.refuse[object] = err
}

// times tells, and forgets, how often each veth pair was to be made.
func (b *board) times() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	made := b.made
	b.made = map[string]int{}
	return made
}

func (b *board) Doubt() {}

func (b *board) Hold(p kernel.Protocol, host netip.AddrPort) (io.Closer, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	port := cmp.Or(host.Port(), 49152)
	name := fmt.Sprintf("%d/%s", port, p)
	if host.Addr().Is6() {
		name += " over IPv6"
	}
	if _, taken := b.taken[name]; taken {
		return nil, 0, kernel.ErrTaken
	}
	b.taken[name] = true
	return letGo(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.taken, name)
	}), port, nil
}

// letGo is a Closer that cannot fail.
type letGo func()

func (f letGo) Close() error { f(); return nil }

func (b *board) Inside(f func() error) error { return f() }

func (b *board) Underlay(kernel.UnderlaySpec) (kernel.Underlay, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.under, nil
}

func (b *board) Conflict(p netip.Prefix, devices ...string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range devices {
		if d == b.foreign {
			return "the device " + d, nil
		}
	}
	for _, r := range b.routes {
		if p.IsValid() && r.Overlaps(p) {
			return r.String(), nil
		}
	}
	return "", nil
}

func (b *board) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.String()
}
