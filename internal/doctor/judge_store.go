package doctor

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

const (
	// slow is what an answer of etcd may take; the plugin gives up after 3 s.
	slow = 500 * time.Millisecond
	// skew is how far two clocks may be apart.
	skew = 10 * time.Second
)

func judgeEtcd(w *World) []Verdict {
	if w.EtcdErr != "" {
		return []Verdict{unknown(w.EtcdErr)}
	}
	var out []Verdict
	for _, e := range w.Endpoint {
		v := Verdict{Subject: e.URL, State: OK, Found: fmt.Sprintf("answers in %s, version %s", rtt(e.Took), orUnknown(e.Version))}
		switch {
		case e.Error != "" && w.Plugin.Embedded && !w.Plugin.Answers():
			v = Verdict{Subject: e.URL, State: Fail, Found: "runs in the plugin, which does not", Why: storeWhy, Mend: judgePlugin(w).Mend}
		case e.Error != "":
			v = Verdict{Subject: e.URL, State: Fail, Found: e.Error, Why: storeWhy}
			v.Mend, v.On = w.startEtcd(e.URL)
		case e.Took > slow:
			v.State, v.Why = Warn, "a call that takes longer than 3 s is given up"
		}
		out = append(out, v)
	}
	return orNone(out, unknown("no endpoint is known"))
}

const storeWhy = "what stands goes on, but no network is made and no host seen coming or going"

func orUnknown(text string) string {
	if text == "" {
		return "not told"
	}
	return text
}

// startEtcd is how an etcd is started on its host: by the plugin there, if the
// host is one of the cluster's.
func (w *World) startEtcd(endpoint string) (mend, on string) {
	const service = "systemctl start etcd"
	u, err := url.Parse(endpoint)
	if err != nil {
		return service, ""
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() || u.Scheme == "unix" {
		return service, ""
	}
	for _, n := range w.Host.Networks {
		if n.PublicIP.String() == host {
			return service, ""
		}
		for _, p := range n.Peers {
			if p.PublicIP.String() == host {
				return enable + " || " + service, host
			}
		}
	}
	return service, host
}

func judgeClock(w *World) []Verdict {
	var out []Verdict
	for _, e := range w.Endpoint {
		switch {
		case e.Error != "":
		case !e.Dated:
			out = append(out, Verdict{Subject: e.URL, State: Unknown, Found: "it does not tell its time"})
		case e.Ahead.Abs() <= skew:
			out = append(out, Verdict{Subject: e.URL, State: OK, Found: "agrees, to a second or two"})
		default:
			out = append(out, Verdict{
				Subject: e.URL, State: Warn, Found: fmt.Sprintf("%s ahead of this host", e.Ahead),
				Why: "certificates seem out of date, and logs of hosts do not fit together", Mend: "timedatectl set-ntp true",
			})
		}
	}
	return orNone(out, unknown("no endpoint answers"))
}

func judgeLease(w *World) []Verdict {
	if w.HostErr != "" {
		return []Verdict{unknown(w.HostErr)}
	}
	var out []Verdict
	for _, n := range w.networks() {
		v := w.judgeOwn(n)
		v.Subject = n.Title()
		out = append(out, v)
	}
	return orNone(out, ok("no Docker network of flannel's"))
}

func (w *World) judgeOwn(n report.Network) Verdict {
	l, held := w.lease(n.Name, n.Subnet)
	again := "docker network rm " + n.DockerID[:min(12, len(n.DockerID))] + " && docker network create -d flannel --ipam-driver flannel"
	if n.Name != "" {
		again += " --ipam-opt network=" + n.Name
	}
	if n.IPv6Subnet.IsValid() {
		again += " --ipv6"
	}
	again += " NAME"
	switch {
	case n.Lease.State == report.Taken || w.StoreErr == "" && held && l.PublicIP != n.PublicIP && !l.Here && w.Plugin.Answers():
		return Verdict{State: Fail, Found: fmt.Sprintf("%s is %s's in etcd", n.Subnet, l.PublicIP), Why: "two hosts give out the same addresses; create it with the options that it has besides", Mend: again}
	case w.StoreErr != "":
		return unknown(fmt.Sprintf("%s by this host's files; etcd: %s", n.Subnet, w.StoreErr))
	case !held:
		return Verdict{
			State: Fail, Found: fmt.Sprintf("%s is not in etcd", n.Subnet), Why: "other hosts have no way to this one, and may take its subnet",
			Mend: w.renewMend(),
		}
	case l.Stale():
		return Verdict{
			State: Fail, Found: fmt.Sprintf("%s was not renewed for %s, and ends in %s", n.Subnet, l.Idle().Round(time.Second), l.Left.Round(time.Second)),
			Why: "when it ends other hosts lose the way to this one", Mend: w.renewMend(),
		}
	case l.Reserved:
		return ok(n.Subnet.String() + " is reserved")
	}
	return ok(fmt.Sprintf("%s, for %s without renewal", n.Subnet, l.Left.Round(time.Second)))
}

// renewMend makes the plugin claim and renew.
func (w *World) renewMend() string {
	if !w.Plugin.Answers() {
		return judgePlugin(w).Mend
	}
	return restart
}

func judgeLeases(w *World) []Verdict {
	if w.StoreErr != "" {
		return []Verdict{unknown(w.StoreErr)}
	}
	var out []Verdict
	leases := 0
	for _, c := range w.Clusters {
		leases += len(c.Leases)
		for _, o := range c.Odd {
			out = append(out, w.judgeOdd(o))
		}
		for _, l := range c.Leases {
			odd := slices.DeleteFunc(slices.Clone(l.Odd), func(o string) bool { return strings.HasPrefix(o, "PublicIP also of") })
			for _, o := range odd {
				out = append(out, Verdict{Subject: l.Subnet.String(), State: Warn, Found: o, Why: "its host is not reached as this network's are"})
			}
		}
	}
	return orNone(out, ok(fmt.Sprintf("%d in %d networks, all of use", leases, len(w.Clusters))))
}

// judgeOdd offers to delete a key only where it says nothing: a config that is
// wrong is to be corrected, and a lease that does not fit it is some host's.
func (w *World) judgeOdd(o report.Odd) Verdict {
	v := Verdict{Subject: o.Key, State: Warn, Found: o.Reason, Why: "this host skips it, and stock flanneld may stop over it"}
	switch {
	case strings.HasSuffix(o.Key, "/config"):
		v.State, v.Why = Fail, "the network's config cannot be used: hosts go on with the last good one, and none can join; correct it, do not delete it"
	case o.Readable:
		v.Why = "some host's lease, and not as the network's config says: correct the config, or create the network anew on that host"
	default:
		v.Mend = w.etcdctl("del '" + strings.ReplaceAll(o.Key, "'", `'\''`) + "'")
	}
	return v
}

func (w *World) etcdctl(call string) string {
	for _, e := range w.Endpoint {
		if e.Error == "" {
			return "ETCDCTL_API=3 etcdctl --endpoints=" + e.URL + " " + call
		}
	}
	return "ETCDCTL_API=3 etcdctl " + call
}
