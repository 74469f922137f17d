// Package kernel is the only room that touches netlink, nftables and sysctls.
// Its caller says what must be true in one network namespace, as a State;
// Apply makes it so, touches nothing without our marks, and tells what it
// could not do.
package kernel

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Options of Open; the zero value works.
type Options struct {
	SysNet string       // where /proc/sys/net is mounted; that is the default
	Log    *slog.Logger // default slog.Default()
}

// Kernel is one network namespace's hand. It keeps what it knows of the kernel
// between calls. All methods may be called at once from any goroutine.
type Kernel struct {
	sysNet string
	log    *slog.Logger
	ns     namespace
	route  *socket // requests to rtnetlink
	filter *socket // requests that read nftables
	tables tables  // writes nftables

	// mu is held by Apply throughout, and by Watch while it compares.
	mu      sync.Mutex
	view    *view           // nil until the first Apply
	touched map[string]bool // links changed since Watch last compared
	noted   map[string]bool

	doubt   atomic.Uint32
	guarded atomic.Bool            // the last wanted state had Guards
	kick    atomic.Pointer[func()] // rouses Watch
	under   atomic.Pointer[string] // the device that Underlay found last
}

// What is in doubt, as bits.
const (
	doubtNet  = 1 << iota // all that rtnetlink and /proc/sys hold
	doubtWall             // nftables
	doubtAll  = doubtNet | doubtWall
)

// Open prepares for the network namespace of the calling thread, which is
// where all methods work, whatever thread they are called on. It changes
// nothing and reads nothing.
func Open(o Options) (*Kernel, error) {
	if o.SysNet == "" {
		o.SysNet = "/proc/sys/net"
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	k := &Kernel{
		sysNet: o.SysNet, log: o.Log,
		ns:      namespace{fd: -1},
		touched: map[string]bool{}, noted: map[string]bool{},
	}
	if err := k.open(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func (k *Kernel) open() (err error) {
	if k.ns, err = currentNS(); err != nil {
		return err
	}
	if k.route, err = dial(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if k.filter, err = dial(unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	k.tables.ns = k.ns
	return nil
}

// Close gives the sockets back and leaves everything in the kernel in place.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	if k.route != nil {
		errs = append(errs, k.route.close())
	}
	if k.filter != nil {
		errs = append(errs, k.filter.close())
	}
	errs = append(errs, k.tables.close())
	if k.ns.fd >= 0 {
		errs = append(errs, k.ns.close())
		k.ns.fd = -1
	}
	return errors.Join(errs...)
}

// Release names the running kernel, as uname -r does.
func Release() string {
	var name unix.Utsname
	_ = unix.Uname(&name) // fails only for a bad pointer
	return unix.ByteSliceToString(name.Release[:])
}

// Doubt makes the next Apply read everything from the kernel.
func (k *Kernel) Doubt() { k.doubt.Store(doubtAll) }

// Result tells what one Apply did.
type Result struct {
	Changed int // objects added, changed or deleted
	// Repaired counts, by kind, the changes that were needed because the
	// kernel was not as the last Apply had left it. The kinds are link, veth,
	// addr, neigh, fdb, route, sysctl, nft, door, admit and docker-user.
	Repaired map[string]int
	Failed   []Failure // what is not as wanted
	Notes    []string  // what the operator may want to know, each told once
}

// Failure is an object that is not as wanted.
type Failure struct {
	Object string // such as "link flannel.1", "route 10.5.3.0/24" or "docker-user"
	Err    error
}

// Error is the failure in one line.
func (f Failure) Error() string { return f.Object + ": " + f.Err.Error() }

// Unwrap gives the cause.
func (f Failure) Unwrap() error { return f.Err }

func (r *Result) fail(object string, err error) {
	r.Failed = append(r.Failed, Failure{object, err})
}

// Apply makes the kernel as wanted: what is missing is added and what differs
// changed, then what carries our marks and is not wanted is deleted. Each
// object fails alone. The slices of want must not be changed afterwards: one
// that comes again is taken to be in place. The kernel is read only at first,
// when in doubt, and after a failure.
func (k *Kernel) Apply(ctx context.Context, want State) Result {
	k.mu.Lock()
	defer k.rouse()
	defer k.mu.Unlock()
	result := Result{Repaired: map[string]int{}}
	var expected map[string]bool // nil where nothing counts as a repair
	if k.view != nil {
		expected = map[string]bool{}
		for _, o := range diff(k.view, want) {
			expected[o.key()] = true
		}
	}
	if !k.refresh(want, &result) {
		return result
	}
	k.guarded.Store(len(want.Guards) > 0)
	run := runner{k: k, expected: expected, result: &result, broken: map[string]bool{}, failed: map[string]bool{}}
	run.all(ctx, diff(k.view, want))
	k.remember(want, run.failed)
	return result
}

// remember keeps the slices that are fully in place.
func (k *Kernel) remember(want State, failed map[string]bool) {
	same := &k.view.same
	*same = State{}
	if !failed["neigh"] {
		same.Neighs = want.Neighs
	}
	if !failed["fdb"] {
		same.FDB = want.FDB
	}
	if !failed["route"] {
		same.Routes = want.Routes
	}
	if !failed["admit"] {
		same.Admits = want.Admits
	}
}

// rouse tells Watch that an Apply has ended.
func (k *Kernel) rouse() {
	if kick := k.kick.Load(); kick != nil {
		(*kick)()
	}
}
