package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// monitor watches over the rooms.
func (p *parts) monitor(s Settings, d *doors, recent *ring, log *slog.Logger) *monitor {
	alive := func(ctx context.Context) error {
		err := d.check(ctx)
		if l := p.overlay.Report().Loop; hung(l, time.Now()) {
			err = errors.Join(err, fmt.Errorf("the loop that keeps the kernel as wanted has not ended a pass since %s", l.Passed.UTC().Format(time.RFC3339)))
		}
		return err
	}
	return &monitor{addr: s.Metrics, metrics: p.metrics, recent: recent, alive: alive, log: log}
}

// status is everything that this host tells.
func (p *parts) status(m *monitor) report.Status {
	s := report.Status{Build: About(), Host: p.overlay.Report(), Store: p.link.report()}
	p.pulse.tell(&s.Host)
	usage := p.ipam.Usage()
	for i, n := range s.Networks {
		if u, known := usage[n.Subnet]; known {
			s.Networks[i].Used = &report.Addresses{Used: u.Used, Free: u.Free}
		}
	}
	counts, err := p.foreign()
	for _, port := range slices.Sorted(maps.Keys(counts)) {
		s.Foreign = append(s.Foreign, report.Foreign{Port: port, Packets: counts[port]})
	}
	s.Problems, s.Notes = judge(s, time.Now())
	if err != nil {
		s.Notes = append(s.Notes, report.Finding{Text: "foreign packets are not counted: " + err.Error()})
	}
	if err := m.fault(); err != nil {
		s.Notes = append(s.Notes, report.Finding{Text: "metrics are not served: " + err.Error(), Next: "free the port, or choose another address"})
	}
	return s
}

// brokenStatus is that of a plugin that cannot work.
func brokenStatus(why error) report.Status {
	return report.Status{
		Build: About(),
		Problems: []report.Finding{{
			Text: why.Error(),
			Next: "docker plugin disable -f docker-flannel; docker plugin set docker-flannel NAME=VALUE; docker plugin enable docker-flannel",
		}},
	}
}
