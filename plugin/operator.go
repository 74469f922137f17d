package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/etcd"
)

// operatorPath begins every path of the operator's calls, on the same sockets as
// the engine's.
const operatorPath = "/flannel/v1/"

// tended is what the operator asks of the overlay.
type tended interface {
	// Found creates a network; overlay.ErrExists where there is one.
	Found(ctx context.Context, req overlay.Request) (overlay.Config, error)
	// Leave gives back at once what this host holds of a network; refused
	// while it is in use.
	Leave(ctx context.Context, network string, cfg overlay.Config, leases []overlay.Lease) error
}

// operator answers the operator's tool.
type operator struct {
	status  func() report.Status
	store   registry // nil where the plugin cannot work
	shared  retirer  // nil without SYNC_NETWORKS
	overlay tended
	audit   func(ctx context.Context) ([]report.Difference, error)
	recent  *ring // of the log
	why     error // why the plugin cannot work
	log     *slog.Logger
}

// refusal is an error with an HTTP status.
type refusal struct {
	status int
	error
}

// Unwrap gives the cause.
func (r refusal) Unwrap() error { return r.error }

// beside lets the operator's calls past the engine's.
func (o *operator) beside(engine http.Handler) http.Handler {
	own := guard(o.log, o)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, operatorPath) {
			own.ServeHTTP(w, r)
			return
		}
		engine.ServeHTTP(w, r)
	})
}

// ServeHTTP answers an operator's call.
func (o *operator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	calls := map[string]func(ctx context.Context, w http.ResponseWriter, r *http.Request) (any, error){
		"GET status": func(ctx context.Context, _ http.ResponseWriter, _ *http.Request) (any, error) {
			return o.look(ctx), nil
		},
		"GET leases":      o.leases,
		"GET audit":       func(ctx context.Context, _ http.ResponseWriter, _ *http.Request) (any, error) { return o.audit(ctx) },
		"GET log":         func(context.Context, http.ResponseWriter, *http.Request) (any, error) { return o.recent.all(), nil },
		"GET networks":    o.networks,
		"POST networks":   o.create,
		"DELETE networks": o.remove,
		"POST leave":      o.leave,
	}
	path := strings.TrimPrefix(r.URL.Path, operatorPath)
	call := calls[r.Method+" "+path]
	if call == nil {
		refuse(w, http.StatusNotFound, fmt.Errorf("%.20q %.80q is not a call of this plugin; the tool and the plugin may be of different versions", r.Method, r.URL.Path))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), deadline)
	defer cancel()
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(deadline)) // in tests there may be no connection
	if o.why != nil && path != "status" && path != "log" {
		refuse(w, http.StatusServiceUnavailable, o.why)
		return
	}
	res, err := call(ctx, w, r)
	if err != nil {
		status := http.StatusBadGateway // etcd's
		if known := (refusal{}); errors.As(err, &known) {
			status = known.status
		}
		refuse(w, status, err)
		return
	}
	answer(w, http.StatusOK, res)
}

// lookTime is how long a status may wait for etcd where it is not known to
// answer.
const lookTime = time.Second

// look is the status; where etcd was not asked yet, or did not answer, it is
// asked now.
func (o *operator) look(ctx context.Context) report.Status {
	if s := o.status(); o.store == nil || s.Store.Connected {
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	_, _ = o.store.Survey(ctx) // what became of it is in the status
	return o.status()
}

func (o *operator) networks(ctx context.Context, _ http.ResponseWriter, _ *http.Request) (any, error) {
	all, err := o.store.Survey(ctx)
	if err != nil {
		return nil, err
	}
	o.mark(all)
	if err := o.shares(ctx, all); err != nil {
		return nil, err
	}
	return append([]report.Cluster{}, all...), nil
}

// leases lists those of the network in the query, or of all.
func (o *operator) leases(ctx context.Context, _ http.ResponseWriter, r *http.Request) (any, error) {
	names := r.URL.Query()["network"]
	if len(names) == 0 {
		all, err := o.store.Survey(ctx)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			names = append(names, c.Network)
		}
	}
	all := make([]report.Cluster, 0, len(names))
	for _, name := range names {
		c, err := o.store.Leases(ctx, name)
		if err != nil {
			return nil, unknown(name, err)
		}
		all = append(all, c)
	}
	o.mark(all)
	return all, nil
}

// mark says which leases are this host's.
func (o *operator) mark(all []report.Cluster) {
	here := o.status().PublicIP
	for _, c := range all {
		for i := range c.Leases {
			c.Leases[i].Here = c.Leases[i].PublicIP == here
		}
	}
}

func unknown(name string, err error) error {
	if errors.Is(err, overlay.ErrNoConfig) {
		return refusal{http.StatusNotFound, fmt.Errorf("%s does not exist; flannel network ls lists those that do", report.Title(name))}
	}
	return err
}

func (o *operator) remove(ctx context.Context, _ http.ResponseWriter, r *http.Request) (any, error) {
	if !r.URL.Query().Has("network") {
		return nil, refusal{http.StatusBadRequest, errors.New("no network is named: say which in the query, as ?network=NAME")}
	}
	name, err := o.meant(ctx, r.URL.Query().Get("network"))
	if err != nil {
		return nil, err
	}
	c, err := o.store.Leases(ctx, name)
	if err != nil {
		return nil, unknown(name, err)
	}
	if err := lasting(c); o.shared != nil && err != nil {
		return nil, err // before any host takes its Docker network away
	}
	docker, err := o.retire(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := o.store.Remove(ctx, name); err != nil {
		if len(c.Leases)+len(c.Odd) > 0 {
			err = refusal{http.StatusConflict, o.unfinished(ctx, name, err)}
		}
		return nil, unknown(name, err)
	}
	o.log.Info("network removed by the operator", "network", report.Title(name), "cidr", c.CIDR)
	return report.Removed{Network: name, Docker: docker}, nil
}

// lasting refuses to remove a network that holds what no host gives back.
func lasting(c report.Cluster) error {
	for _, l := range c.Leases {
		if l.Reserved {
			return refusal{http.StatusConflict, fmt.Errorf("%s is in use: %s is reserved for host %s, without a time to live; delete its key in etcd first if it is of no use any more",
				report.Title(c.Network), l.Subnet, l.PublicIP)}
		}
	}
	for _, odd := range c.Odd {
		if strings.Contains(odd.Key, "/subnets/") {
			return refusal{http.StatusConflict, fmt.Errorf("%s holds a key that cannot be used, %s (%s); see to that first: flannel leases",
				report.Title(c.Network), odd.Key, odd.Reason)}
		}
	}
	return nil
}

// createRequest is the body of a call to create a network.
type createRequest struct {
	Network string
	Subnet  string // its CIDR, empty for a free one
	Backend string // flannel's name of it, empty for the setting's
}

func (o *operator) create(ctx context.Context, w http.ResponseWriter, r *http.Request) (any, error) {
	var req createRequest
	if err := decode(w, r, &req); err != nil {
		return nil, refusal{http.StatusBadRequest, err}
	}
	want := overlay.Request{Name: req.Network, Backend: req.Backend}
	if req.Subnet != "" {
		cidr, err := netip.ParsePrefix(req.Subnet)
		if err != nil || !cidr.Addr().Is4() || cidr != cidr.Masked() {
			return nil, refusal{http.StatusBadRequest, fmt.Errorf("--subnet %s: not an IPv4 network such as 10.9.0.0/16", req.Subnet)}
		}
		want.Subnet = cidr
	}
	cfg, err := o.overlay.Found(ctx, want)
	switch {
	case etcd.Unreachable(err):
		return nil, err
	case err != nil:
		return nil, refusal{http.StatusConflict, err}
	}
	o.log.Info("network created by the operator", "network", report.Title(req.Network), "cidr", cfg.Network, "backend", cfg.Backend.Type)
	return report.Cluster{Network: req.Network, CIDR: cfg.Network, IPv6CIDR: cfg.IPv6Network, Backend: cfg.Backend.Type}, nil
}

// leaveRequest is the body of a call to leave.
type leaveRequest struct {
	Network *string // nil for every network that this host has a lease in
}

func (o *operator) leave(ctx context.Context, w http.ResponseWriter, r *http.Request) (any, error) {
	var req leaveRequest
	if err := decode(w, r, &req); err != nil {
		return nil, refusal{http.StatusBadRequest, err}
	}
	if !o.status().PublicIP.IsValid() {
		return nil, refusal{http.StatusServiceUnavailable, errors.New("this host's interface is not found yet, by whose address its leases are known: see the settings IFACE and PUBLIC_IP, and try again")}
	}
	var all []report.Cluster
	if req.Network != nil {
		c, err := o.store.Leases(ctx, *req.Network)
		if err != nil {
			return nil, unknown(*req.Network, err)
		}
		all = []report.Cluster{c}
	} else {
		var err error
		if all, err = o.store.Survey(ctx); err != nil {
			return nil, err
		}
	}
	o.mark(all)
	left := []report.Left{}
	var errs []error
	for _, c := range all {
		l, err := o.leaveOne(ctx, c)
		if err != nil {
			errs = append(errs, err)
		} else if req.Network != nil || len(l.Given)+len(l.Reserved) > 0 {
			left = append(left, l)
		}
	}
	if len(errs) > 0 && len(left) > 0 {
		errs = append(errs, fmt.Errorf("given back were those of %d other networks", len(left)))
	}
	return left, errors.Join(errs...)
}

// leaveOne gives back this host's leases of one network.
func (o *operator) leaveOne(ctx context.Context, c report.Cluster) (report.Left, error) {
	left := report.Left{Network: c.Network}
	var leases []overlay.Lease
	for _, l := range c.Leases {
		switch {
		case l.Here && l.Reserved:
			left.Reserved = append(left.Reserved, l.Subnet)
		case l.Here:
			left.Given = append(left.Given, l.Subnet)
			leases = append(leases, overlay.Lease{Subnet: l.Subnet, IPv6Subnet: l.IPv6Subnet})
		}
	}
	known := slices.ContainsFunc(o.status().Networks, func(n report.Network) bool { return n.Name == c.Network })
	if len(left.Given)+len(left.Reserved) == 0 && !known {
		return left, nil
	}
	cfg, err := o.store.Config(ctx, c.Network, nil)
	if err != nil {
		return left, err
	}
	if err := o.overlay.Leave(ctx, c.Network, cfg, leases); err != nil {
		if !etcd.Unreachable(err) {
			err = refusal{http.StatusConflict, err}
		}
		return left, err
	}
	if len(left.Given) > 0 {
		o.log.Info("leases given back by the operator", "network", report.Title(c.Network), "subnets", left.Given)
	}
	return left, nil
}
