package plugin

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// metrics are the plugin's numbers: what takes time is counted as it happens,
// everything else is read from a Status when somebody asks.
type metrics struct {
	descs   map[string]*prometheus.Desc
	kinds   map[string]prometheus.ValueType
	status  func() report.Status
	traffic func(device string) (kernel.Traffic, error)

	passes      *prometheus.HistogramVec
	calls       *prometheus.HistogramVec
	store       *prometheus.HistogramVec
	storeErrors *prometheus.CounterVec
}

// newMetrics counts from now on; status and traffic are set before anybody asks.
func newMetrics() *metrics {
	m := &metrics{descs: map[string]*prometheus.Desc{}, kinds: map[string]prometheus.ValueType{}}
	byName := map[string]family{}
	for _, f := range families() {
		byName[f.name] = f
		m.descs[f.name] = prometheus.NewDesc(f.name, f.help, f.labels, nil)
		m.kinds[f.name] = prometheus.GaugeValue
		if f.kind == "counter" {
			m.kinds[f.name] = prometheus.CounterValue
		}
	}
	histogram := func(name string) *prometheus.HistogramVec {
		f := byName[name]
		// From 0.5 ms, a pass without work, to 8 s, the deadline of a call.
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: f.help, Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}, f.labels)
	}
	m.passes = histogram("flannel_reconcile_duration_seconds")
	m.calls = histogram("flannel_rpc_duration_seconds")
	m.store = histogram("flannel_store_request_duration_seconds")
	errs := byName["flannel_store_errors_total"]
	m.storeErrors = prometheus.NewCounterVec(prometheus.CounterOpts{Name: errs.name, Help: errs.help}, errs.labels)
	return m
}

// registry is what /metrics serves.
func (m *metrics) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func (m *metrics) passed(took time.Duration) { m.passes.WithLabelValues().Observe(took.Seconds()) }

// called tells of a call of the engine's.
func (m *metrics) called(call string, took time.Duration, refused bool) {
	m.calls.WithLabelValues(call, outcome(refused)).Observe(took.Seconds())
}

// asked tells of a call to etcd.
func (m *metrics) asked(operation string, took time.Duration, failed bool) {
	m.store.WithLabelValues(operation).Observe(took.Seconds())
	count := m.storeErrors.WithLabelValues(operation)
	if failed {
		count.Inc()
	}
}

func outcome(failed bool) string {
	if failed {
		return "error"
	}
	return "ok"
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		ch <- d
	}
}

// sample is one Collect under way.
type sample struct {
	*metrics
	ch chan<- prometheus.Metric
}

func (s sample) put(name string, value float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(s.descs[name], s.kinds[name], value, labels...)
}

func (s sample) flag(name string, on bool, labels ...string) {
	value := 0.0
	if on {
		value = 1
	}
	s.put(name, value, labels...)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.passes.Collect(ch)
	m.calls.Collect(ch)
	m.store.Collect(ch)
	m.storeErrors.Collect(ch)
	s, now := m.status(), time.Now()
	put := sample{m, ch}
	put.put("flannel_build_info", 1, s.Build.Version, s.Build.Revision, s.Build.Go)
	put.flag("flannel_ready", len(s.Problems) == 0)
	put.flag("flannel_store_connected", s.Store.Connected)
	put.put("flannel_reconcile_failures", float64(len(s.Loop.Failures)))
	for _, r := range s.Loop.Repairs {
		put.put("flannel_repairs_total", float64(r.Count), r.Kind)
	}
	for _, f := range s.Foreign {
		put.put("flannel_foreign_packets_total", float64(f.Packets), strconv.Itoa(f.Port))
	}
	for _, n := range s.Networks {
		put.lease(n, now)
		put.cluster(n)
		put.packets(n)
	}
}

func (s sample) lease(n report.Network, now time.Time) {
	l := n.Lease
	s.flag("flannel_lease_held", l.State == report.Held, n.Name)
	s.flag("flannel_lease_conflict", l.State == report.Taken, n.Name)
	if !l.Since.IsZero() {
		s.put("flannel_lease_age_seconds", now.Sub(l.Since).Seconds(), n.Name)
	}
	renewed := 0.0
	if !l.Renewed.IsZero() {
		renewed = float64(l.Renewed.UnixMilli()) / 1000
	}
	s.put("flannel_lease_renewed_timestamp_seconds", renewed, n.Name)
	s.put("flannel_lease_ttl_seconds", l.TTL.Seconds(), n.Name)
	s.put("flannel_lease_renewals_total", float64(l.Renewals), n.Name, outcome(false))
	s.put("flannel_lease_renewals_total", float64(l.Failures), n.Name, outcome(true))
}

func (s sample) cluster(n report.Network) {
	skipped := 0
	for _, p := range n.Peers {
		if p.Skipped != "" {
			skipped++
		}
		if p.Reach == nil {
			continue
		}
		s.put("flannel_peer_loss_ratio", p.Reach.Loss(), n.Name, p.Subnet.String(), p.PublicIP.String())
		if p.Reach.RTT > 0 {
			s.put("flannel_peer_rtt_seconds", p.Reach.RTT.Seconds(), n.Name, p.Subnet.String(), p.PublicIP.String())
		}
	}
	s.put("flannel_leases", float64(n.Leases), n.Name)
	s.put("flannel_peers", float64(len(n.Peers)-skipped), n.Name, "reachable")
	s.put("flannel_peers", float64(skipped), n.Name, "skipped")
	s.put("flannel_skipped_entries", float64(len(n.Skipped)), n.Name)
	s.put("flannel_skipped_entries_total", float64(n.Skips), n.Name)
	s.put("flannel_endpoints", float64(len(n.Ports)), n.Name)
	if n.Used != nil {
		s.put("flannel_addresses", float64(n.Used.Used), n.Name, "used")
		s.put("flannel_addresses", float64(n.Used.Free), n.Name, "free")
	}
}

// packets are a tunnel's, or its device's as the kernel counts them. Without the
// device there are none.
func (s sample) packets(n report.Network) {
	t := n.Tunnel
	if t == nil {
		if n.Device == "" {
			return
		}
		count, err := s.traffic(n.Device)
		if err != nil {
			return
		}
		if n.Device == n.Bridge { // what containers send comes in there
			count.SentPackets, count.ReceivedPackets = count.ReceivedPackets, count.SentPackets
			count.SentBytes, count.ReceivedBytes = count.ReceivedBytes, count.SentBytes
		}
		t = &report.Traffic{
			SentPackets: count.SentPackets, SentBytes: count.SentBytes,
			ReceivedPackets: count.ReceivedPackets, ReceivedBytes: count.ReceivedBytes,
			Drops: map[string]uint64{
				"device-rx": count.ReceiveDropped, "device-tx": count.SendDropped,
				"device-rx-error": count.ReceiveErrors, "device-tx-error": count.SendErrors,
			},
		}
	}
	s.put("flannel_packets_total", float64(t.SentPackets), n.Name, n.Backend, "sent")
	s.put("flannel_packets_total", float64(t.ReceivedPackets), n.Name, n.Backend, "received")
	s.put("flannel_bytes_total", float64(t.SentBytes), n.Name, n.Backend, "sent")
	s.put("flannel_bytes_total", float64(t.ReceivedBytes), n.Name, n.Backend, "received")
	for reason, count := range t.Drops {
		s.put("flannel_drops_total", float64(count), n.Name, n.Backend, reason)
	}
}
